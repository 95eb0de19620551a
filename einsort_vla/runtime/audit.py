"""What a bundle was asked to run coded, and what its engines, or its graphs, really run."""

import mmap
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from einsort_vla.errors import CheckpointError, importing
from einsort_vla.runtime.bundle import ENGINES, Bundle
from einsort_vla.runtime.engine import Receipt, find_builder, read_receipt, why_stale
from einsort_vla.runtime.manifest import GRAPHS, WEIGHT_FILE, Layer

# Of an engine without its builder's texts, for each byte of streams and other weights; and what
# TensorRT-RTX 1.7 adds to the smallest (padded channels of a convolution, descriptions of layers).
MOST_BYTES, MORE_BYTES = 1.10, 2**18
DENSE, GRAPH, PLUGIN = "dense", "einsort node", "PLUGIN_V3"
NOT_STORED = "plugin without its stream"
SAMPLE_BYTES = 4096  # of a stream, to be found in an engine: it is as good as random
_TEXT = re.compile(rb"[\t\n\r\x20-\x7e]{256,}")


@dataclass(frozen=True)
class Row:
    """One linear layer of one part."""

    part: str
    name: str
    requested: str
    executed: str
    n_bytes: int

    @property
    def is_coded(self) -> bool:
        return self.executed in (GRAPH, PLUGIN)


@dataclass(frozen=True)
class Size:
    """Bytes of one engine.

    Attributes:
        part: what it is of.
        engine: the file.
        texts: sources of the builder's own kernels in it; TensorRT-RTX compiles them at load.
        needed: streams and all other weights, in the types of its graph.
    """

    part: str
    engine: int
    texts: int
    needed: int

    @property
    def ratio(self) -> float:
        return (self.engine - self.texts) / self.needed

    @property
    def is_small(self) -> bool:
        return self.engine - self.texts <= MOST_BYTES * self.needed + MORE_BYTES


@dataclass(frozen=True)
class Audit:
    """All layers, and the sizes of engines against what they must hold.

    Attributes:
        what: what was looked at.
        rows: one a layer.
        sizes: of the engines, if it looked at engines.
        kept: matrices that the plan keeps without error; they are dense on purpose.
    """

    what: str
    rows: list[Row]
    sizes: list[Size]
    kept: list[str]

    @property
    def failures(self) -> list[str]:
        """Why it fails; empty if it passes."""
        found = [] if self.rows else ["no layer is coded"]
        found += [
            f"{row.part}: {row.name} is {row.executed}" for row in self.rows if not row.is_coded
        ]
        found += [
            f"the engine of {size.part} has {size.engine - size.texts} bytes besides texts, "
            f"{size.ratio:.2f} times what it must hold"
            for size in self.sizes
            if not size.is_small
        ]
        return found


def audit(bundle: Bundle) -> Audit:
    """Of the engines, if they were built and fit, else of the graphs.

    Raises:
        CheckpointError: engines are there, but do not fit the bundle.
        MissingDependency: there are no engines, and the package onnx is not installed.
    """
    receipt = read_receipt(bundle)
    executed = _of_graphs(bundle) if receipt is None else _of_engines(bundle, receipt)
    rows = [
        Row(part, layer.name, layer.spec, executed[part].get(layer.name, DENSE), layer.bytes)
        for part, facts in bundle.parts.items()
        for layer in facts.layers
    ]
    sizes = [] if receipt is None else [_size(bundle, part, receipt) for part in bundle.parts]
    what = "graphs" if receipt is None else f"engines by {receipt.builder}"
    return Audit(what, rows, sizes, list(bundle.manifest.source.kept_without_error))


def _of_engines(bundle: Bundle, receipt: Receipt) -> dict[str, dict[str, str]]:
    """A layer counts as coded if it is the plugin's, and its streams lie in the engine as exported.

    Raises:
        CheckpointError: engines do not fit the bundle.
    """
    if reason := why_stale(bundle, find_builder(bundle)):
        raise CheckpointError(
            f"the engines of {bundle.folder} do not fit it: {reason}. Build again."
        )
    weights = bundle.folder / GRAPHS / WEIGHT_FILE
    executed = {}
    for part, facts in receipt.parts.items():
        with _mapped(weights) as stored, _mapped(bundle.folder / ENGINES / facts.file) as engine:
            executed[part] = {
                layer.name: PLUGIN if _holds(engine, stored, layer) else NOT_STORED
                for layer in bundle.parts[part].layers
                if _names(layer) <= set(facts.plugin_layers)
            }
    return executed


def _names(layer: Layer) -> set[str]:
    """Of its nodes: a layer that runs more than once in a part has as many."""
    more = {f"{layer.name}#{k}" for k in range(2, layer.nodes + 1)}
    return {layer.name, *more}


def _holds(engine: mmap.mmap, stored: mmap.mmap, layer: Layer) -> bool:
    return all(
        engine.find(stored[offset : offset + min(n, SAMPLE_BYTES)]) >= 0
        for offset, n in layer.streams
    )


def _size(bundle: Bundle, part: str, receipt: Receipt) -> Size:
    needed, facts = bundle.parts[part].engine_bytes_needed, receipt.parts[part]
    assert needed is not None  # there are engines
    with _mapped(bundle.folder / ENGINES / facts.file) as engine:
        texts = sum(match.end() - match.start() for match in _TEXT.finditer(engine))
    return Size(part, facts.bytes, texts, needed.coded + needed.other)


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content


def _of_graphs(bundle: Bundle) -> dict[str, dict[str, str]]:
    lack = "no engines were built, and graphs cannot be read"
    with importing(lack, "Build engines, or: pip install onnx"):
        import onnx
    found = {}
    for part in bundle.parts:
        graph = onnx.load(str(bundle.graph(part)), load_external_data=False).graph
        nodes = {node.name for node in graph.node if node.domain == "einsort"}
        layers = bundle.parts[part].layers
        found[part] = {layer.name: GRAPH for layer in layers if _names(layer) <= nodes}
    return found
