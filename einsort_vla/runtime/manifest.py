"""manifest.json of a bundle: its fields, their bounds, and what they must have in common."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

from einsort_vla.errors import CheckpointError
from einsort_vla.runtime.records import Limits, read_record

FORMAT, FORMAT_VERSION = "einsort-bundle", 2
MANIFEST, SAMPLES = "manifest.json", "samples.npz"
GRAPHS, WEIGHT_FILE, CHUNK = "graphs", "weights.bin", "chunk"
PARTS = VISION, PREFIX, DENOISE_STEP = "vision", "prefix", "denoise_step"
VELOCITY, ACTIONS = "velocity", "actions"  # outputs of a step, and of a whole chunk
# What the steps of the flow take, beside what the prefix gives; a chunk begins with the noise.
NOISE, NOISY_ACTIONS, TIME = "noise", "noisy_actions", "time"
MAX_BATCH, MAX_STEPS = 64, 1000
# Of a coded weight, at least. A layer that claims more weights than its bytes explain is a way to
# have memory taken.
LEAST_BITS = 0.4
EXPORT_AGAIN = "Copy the whole bundle again, or export it again."

Precision = Literal["float32", "float16", "bfloat16"]
Fingerprint = Annotated[str, Limits(64, 64)]
_Size = Annotated[int, Limits(1, 2**31)]
_Bytes = Annotated[int, Limits(0, 2**40)]
_Names = Annotated[tuple[str, ...], Limits(0, 10_000)]


@dataclass(frozen=True)
class Source:
    """The compressed folder that was exported."""

    weights_sha256: Fingerprint
    rate: float
    kept_without_error: _Names


@dataclass(frozen=True)
class PolicyFacts:
    """What feeds the graphs, and what uses the actions, must know."""

    type: str
    cameras: Annotated[tuple[str, ...], Limits(0, 64)]
    image_range: tuple[float, float]
    tokenizer_max_length: _Size
    state_size: Annotated[int, Limits(0, 10_000)]
    action_size: Annotated[int, Limits(1, 10_000)]
    chunk_size: Annotated[int, Limits(1, 10_000)]
    n_action_steps: Annotated[int, Limits(1, 10_000)]
    n_steps: Annotated[int, Limits(1, MAX_STEPS)]
    normalization: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class TargetFacts:
    """What it was exported for; see `export.Target`."""

    name: str
    what: str
    machine: Literal["x86_64", "aarch64"] | None
    compute_capability: Annotated[int, Limits(10, 999)] | None
    cuda: str | None


@dataclass(frozen=True)
class Batch:
    """Observations at once; the most, if it is dynamic."""

    size: Annotated[int, Limits(1, MAX_BATCH)]
    dynamic: bool


@dataclass(frozen=True)
class Precisions:
    """What is computed in what; `engines` is None if there are none."""

    onnx: Literal["float32"]
    engines: Precision | None
    sums: Literal["float32"]
    flow: Literal["float32"]


@dataclass(frozen=True)
class Value:
    """An input or output of a graph; an axis of size None is an open batch."""

    name: str
    dtype: Literal["float32", "bool", "int64"]
    shape: Annotated[tuple[_Size | None, ...], Limits(1, 8)]


@dataclass(frozen=True)
class Graph:
    """What goes into a graph and what comes out."""

    inputs: Annotated[tuple[Value, ...], Limits(1, 100)]
    outputs: Annotated[tuple[Value, ...], Limits(1, 100)]


@dataclass(frozen=True)
class Layer:
    """A coded layer: (out_features, in_features), offset and bytes of its streams in the file of
    weights, and how often it runs in its part."""

    name: str
    spec: str
    bits_per_weight: float
    shape: tuple[_Size, _Size]
    bytes: _Bytes
    streams: Annotated[tuple[tuple[_Bytes, _Size], ...], Limits(0, 2)]
    nodes: Annotated[int, Limits(1, 1000)]

    @property
    def weights(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Needed:
    """Bytes that an engine must hold: coded streams, and all other weights."""

    coded: _Bytes
    other: _Bytes


@dataclass(frozen=True)
class Part(Graph):
    """A graph that an engine is built of."""

    layers: Annotated[tuple[Layer, ...], Limits(0, 10_000)]
    engine_bytes_needed: Needed | None = None


@dataclass(frozen=True)
class Manifest:
    """docs/export.md has what each file of a bundle is for."""

    format: str
    version: int
    source: Source
    policy: PolicyFacts
    target: TargetFacts
    batch: Batch
    precision: Precisions
    versions: dict[str, str | None]
    parts: dict[str, Part]
    chunk: Graph


def read_manifest(folder: Path, sizes: Mapping[str, int]) -> Manifest:
    """The manifest of a bundle.

    Args:
        folder: of the bundle.
        sizes: bytes of its files by name; coded weights must fit into those of its graphs.

    Raises:
        CheckpointError: it is missing, damaged, of another version, or contradicts itself.
    """
    path = folder / MANIFEST
    header = read_record(path, dict[str, Any], EXPORT_AGAIN)
    found = (header.get("format"), header.get("version"))
    if found != (FORMAT, FORMAT_VERSION):
        raise CheckpointError(
            f"{folder} is of format {found[0]!a:.80} version {found[1]!a:.80}; this program reads "
            f"{FORMAT!r} version {FORMAT_VERSION}. Export it again with this version."
        )
    manifest = read_record(path, Manifest, EXPORT_AGAIN)
    wrong = chain(
        _of_shapes(manifest), _of_inputs(manifest), _of_target(manifest),
        _of_files(manifest, sizes), _of_layers(manifest, sizes),
    )  # fmt: skip
    if first := next(wrong, None):
        raise CheckpointError(f"{path} does not fit the bundle: {first}. {EXPORT_AGAIN}")
    return manifest


def _of_shapes(manifest: Manifest) -> Iterator[str]:
    if manifest.parts.keys() != set(PARTS):
        yield f"its parts are {', '.join(manifest.parts)[:200]}, not {', '.join(PARTS)}"
        return
    step = manifest.parts[DENOISE_STEP]
    flow = {
        name: next((value.shape for value in values if value.name == name), ())
        for name, values in (
            (NOISE, manifest.chunk.inputs), (ACTIONS, manifest.chunk.outputs),
            (NOISY_ACTIONS, step.inputs), (VELOCITY, step.outputs),
        )
    }  # fmt: skip
    first, *others = flow.values()
    if len(first) != 3 or any(shape != first for shape in others):
        yield f"{', '.join(flow)} must have one shape of three axes"
    elif manifest.policy.action_size > (first[-1] or 0):
        yield "the policy has more actions than its graphs"


def _of_inputs(manifest: Manifest) -> Iterator[str]:
    """Each part takes what a chunk begins with, what parts before it give, and what a step does."""
    given = {value.name for value in manifest.chunk.inputs}
    for name, more in ((VISION, ()), (PREFIX, ()), (DENOISE_STEP, (NOISY_ACTIONS, TIME))):
        part = manifest.parts[name]
        given |= set(more)
        if unknown := {value.name for value in part.inputs} - given:
            yield f"{name} takes {min(unknown)[:80]!a}, which nothing gives"
        given |= {value.name for value in part.outputs}


def _of_target(manifest: Manifest) -> Iterator[str]:
    target = manifest.target
    needed = [part.engine_bytes_needed for part in manifest.parts.values()]
    of_engines = (target.machine, manifest.precision.engines, *needed)
    if any((fact is None) != (target.compute_capability is None) for fact in of_engines):
        yield "engines need a compute capability, machine and precision, and the bytes of each part"


def _of_files(manifest: Manifest, sizes: Mapping[str, int]) -> Iterator[str]:
    graphs = [*PARTS, CHUNK]
    if manifest.precision.engines is not None:
        graphs += [f"{part}.engine" for part in PARTS]
    for name in (SAMPLES, *(f"{GRAPHS}/{graph}.onnx" for graph in graphs)):
        if name not in sizes:
            yield f"it has no {name}"


def _of_layers(manifest: Manifest, sizes: Mapping[str, int]) -> Iterator[str]:
    weight_file = sizes.get(f"{GRAPHS}/{WEIGHT_FILE}", 0)
    stored = sum(size for name, size in sizes.items() if name.startswith(f"{GRAPHS}/"))
    for layer in (layer for part in manifest.parts.values() for layer in part.layers):
        if layer.bytes > stored or LEAST_BITS * layer.weights > 8 * layer.bytes:
            yield (
                f"{layer.name} claims {layer.weights} weights in {layer.bytes} of {stored} bytes; "
                f"a weight has at least {LEAST_BITS} bits"
            )
        if any(offset + n > weight_file for offset, n in layer.streams):
            yield f"a stream of {layer.name} ends behind the file of weights"
