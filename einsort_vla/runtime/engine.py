"""Builds the engines of a bundle, each in its own process, and knows whether they still fit."""

import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import einsort_vla
from einsort_vla.atomic import atomic_file, write_text
from einsort_vla.errors import CheckpointError, EngineError, MissingDependency
from einsort_vla.private import private_folder, state_folder
from einsort_vla.runtime import gpu
from einsort_vla.runtime.bundle import ENGINES, Bundle
from einsort_vla.runtime.manifest import DENOISE_STEP, Fingerprint
from einsort_vla.runtime.records import Limits, parse_record, read_record
from einsort_vla.signature import sha256

RECEIPT = "receipt.json"
RTX, REGULAR = "tensorrt_rtx", "tensorrt"
_RTX_LIBRARIES, _RTX_LIBRARY = "tensorrt_rtx_libs", "libtensorrt_rtx.so"
_Count = Annotated[int, Limits(0, 2**40)]


@dataclass(frozen=True)
class Found:
    """What the builder's process tells of an engine: seconds, layers by kind, the plugin's."""

    seconds: Annotated[float, Limits(0, 1e9)]
    layers: dict[str, _Count]
    plugin_layers: Annotated[tuple[str, ...], Limits(0, 100_000)]


@dataclass(frozen=True)
class EngineFacts(Found):
    """An engine in the folder of engines."""

    file: str
    sha256: Fingerprint
    bytes: _Count


@dataclass(frozen=True)
class Circumstances:
    """What engines are tied to: fingerprints of bundle and plugin, and what built them."""

    bundle: Fingerprint
    builder: str
    compute_capability: Annotated[int, Limits(10, 999)]
    plugin: Fingerprint
    device: str | None


@dataclass(frozen=True)
class Receipt(Circumstances):
    """What was built."""

    parts: dict[str, EngineFacts]


def build_engines(
    bundle: Bundle, on_progress: Callable[[str], None] = lambda part: None
) -> Receipt:
    """Build what is missing or does not fit any more; returns the receipt, which is also written.

    The bundle's plugin is loaded and run, in a process of its own: a crash ends that, not this one.

    Raises:
        MissingDependency: there is no TensorRT that builds for this target.
        CheckpointError: this is another kind of machine, or the bundle has no engine graphs.
        EngineError: TensorRT refused a graph; the message holds what it said.
    """
    builder = find_builder(bundle)
    plugin = bundle.plugin
    earlier = read_receipt(bundle)
    if earlier is not None and were_built_here(bundle) and why_stale(bundle, builder) is None:
        return earlier
    folder = bundle.folder / ENGINES
    folder.mkdir(exist_ok=True)
    (folder / RECEIPT).unlink(missing_ok=True)
    built = {}
    for part in bundle.parts:
        on_progress(part)
        built[part] = _build(bundle, part, builder, plugin, folder / f"{part}.engine")
    receipt = Receipt(**asdict(_circumstances(bundle, builder, plugin)), parts=built)
    write_text(folder / RECEIPT, json.dumps(asdict(receipt), indent=1) + "\n")
    write_text(private_folder(state_folder() / ENGINES) / sha256(folder / RECEIPT), "")
    return receipt


def were_built_here(bundle: Bundle) -> bool:
    """Whether this user built the engines on this machine: those of others are their code."""
    receipt = bundle.folder / ENGINES / RECEIPT
    if not receipt.is_file():
        return False
    try:
        return (private_folder(state_folder() / ENGINES) / sha256(receipt)).is_file()
    except OSError:  # there is no place where it could have been noted
        return False


def find_builder(bundle: Bundle) -> str:
    """`tensorrt_rtx` for desktops where it is installed, else `tensorrt`.

    Raises:
        MissingDependency: neither can be imported.
        CheckpointError: the bundle is for ONNX Runtime, or for another kind of machine.
    """
    target = bundle.manifest.target
    if target.compute_capability is None:
        raise CheckpointError(
            f"{bundle.folder} was exported for {target.what}; it has no graphs for engines. "
            "Export with --target orin, thor, rtx30, rtx40 or rtx50."
        )
    if platform.machine() != target.machine:
        raise CheckpointError(
            f"engines for {target.what} are built on the device itself ({target.machine}); "
            f"this machine is {platform.machine()}. Copy the folder there and build it there."
        )
    names = (REGULAR,) if target.machine == "aarch64" else (RTX, REGULAR)
    for name in names:
        if importlib.util.find_spec(name) is not None:
            return name
    raise MissingDependency(
        "no TensorRT can be imported here. Jetson: it comes with JetPack (apt install "
        "tensorrt python3-libnvinfer). Desktop: pip install tensorrt-rtx-cu13==1.7.1.116"
    )


def read_receipt(bundle: Bundle) -> Receipt | None:
    """What is known of the bundle's engines; None if none were built.

    Raises:
        CheckpointError: it is damaged.
    """
    path = bundle.folder / ENGINES / RECEIPT
    if not path.is_file():
        return None
    fix = f"Remove {path.parent} and build."
    receipt = read_record(path, Receipt, fix)
    files = {part: facts.file for part, facts in receipt.parts.items()}
    if files != {part: f"{part}.engine" for part in bundle.parts}:
        raise CheckpointError(f"{path} is damaged: it names other engines. {fix}")
    return receipt


def why_stale(bundle: Bundle, builder: str) -> str | None:
    """Why the engines cannot be used as they are; None if they can."""
    receipt = read_receipt(bundle)
    if receipt is None:
        return "no engines were built"
    for key, now in asdict(_circumstances(bundle, builder, bundle.plugin)).items():
        if getattr(receipt, key) != now:
            return f"they were built with {key} {getattr(receipt, key)}, now it is {now}"
    for part, facts in receipt.parts.items():
        path = bundle.folder / ENGINES / facts.file
        if not path.is_file() or sha256(path) != facts.sha256:
            return f"the engine of {part} is missing or not what was built"
    return None


def _circumstances(bundle: Bundle, builder: str, plugin: Path) -> Circumstances:
    return Circumstances(
        bundle=bundle.fingerprint,
        builder=f"{builder} {_version(builder)}",
        compute_capability=_capability(bundle, builder),
        plugin=sha256(plugin),
        device=gpu.device_name() if builder == REGULAR else None,
    )


def _capability(bundle: Bundle, builder: str) -> int:
    """TensorRT builds for the GPU that is there, TensorRT-RTX for the one it is told."""
    wanted = bundle.manifest.target.compute_capability
    assert wanted is not None  # `find_builder`
    if builder == RTX:
        return wanted
    found = gpu.compute_capability()
    if found != wanted:
        raise CheckpointError(
            f"{bundle.folder} was exported for compute capability {wanted / 10}, and this GPU has "
            f"{found / 10}. Export it again with the --target of this device."
        )
    return found


def _version(builder: str) -> str:
    from importlib import metadata

    for name in (builder, f"{builder}_cu13", f"{builder}_cu12"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return str(importlib.import_module(builder).__version__)  # of Debian's packages


def _build(bundle: Bundle, part: str, builder: str, plugin: Path, out: Path) -> EngineFacts:
    """One engine, by `builder_process`."""
    with atomic_file(out) as partial:
        found = _process(bundle, part, builder, plugin, partial)
    return EngineFacts(**asdict(found), file=out.name, sha256=sha256(out), bytes=out.stat().st_size)


def _process(bundle: Bundle, part: str, builder: str, plugin: Path, out: Path) -> Found:
    batch, n_steps = bundle.manifest.batch, bundle.manifest.policy.n_steps
    job = {
        "builder": builder, "graph": str(bundle.engine_graph(part).resolve()),
        "plugin": str(plugin.resolve()), "out": str(out.resolve()),
        "compute_capability": bundle.manifest.target.compute_capability,
        "batch": batch.size if batch.dynamic else None,
        "n_steps": n_steps if part == DENOISE_STEP else None,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as links:
        # `-m` looks into the current folder first, which may be the bundle: not from there. Python
        # 3.10 has no -P.
        result = subprocess.run(
            [sys.executable, "-m", "einsort_vla.runtime.builder_process"], cwd=links,
            input=json.dumps(job), capture_output=True, text=True, env=_environment(builder, links),
        )  # fmt: skip
    said = [line for line in result.stderr.strip().splitlines() if line.strip()]
    if result.returncode:
        code = result.returncode
        ended = f"exit code {code}" if code > 0 else f"signal {-code}"
        raise EngineError(
            f"{builder} could not build the engine of {part} ({ended}): "
            + (" | ".join(said[-6:]) or "it said nothing")
        )
    last = result.stdout.strip().rpartition("\n")[2]
    return parse_record(last.encode(), Found, f"what {builder} says of {part}")


def _environment(builder: str, links: str) -> dict[str, str]:
    """This package on the path; for RTX also the name under which its parser opens its library,
    which the wheel has only with a version: without it the builder aborts."""
    environment = dict(os.environ)

    def prepend(name: str, folder: str) -> None:
        environment[name] = os.pathsep.join(filter(None, [folder, environment.get(name)]))

    prepend("PYTHONPATH", str(Path(einsort_vla.__file__).resolve().parents[1]))
    spec = importlib.util.find_spec(_RTX_LIBRARIES) if builder == RTX else None
    if spec is not None and spec.origin is not None:
        for library in Path(spec.origin).parent.glob(f"{_RTX_LIBRARY}.?"):
            os.symlink(library, Path(links) / _RTX_LIBRARY)
        prepend("LD_LIBRARY_PATH", links)
    return environment
