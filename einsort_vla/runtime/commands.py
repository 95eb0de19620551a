"""`build`, `verify`, `bench` and `audit` of a bundle; all but the last write a receipt in it."""

import contextlib
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from einsort_vla.atomic import write_text
from einsort_vla.errors import UsageError
from einsort_vla.runtime import measure
from einsort_vla.runtime.audit import Audit
from einsort_vla.runtime.audit import audit as audit_bundle
from einsort_vla.runtime.bundle import ENGINES, Bundle, open_bundle
from einsort_vla.runtime.engine import build_engines, read_receipt, were_built_here
from einsort_vla.runtime.flow import ChunkSession, Session
from einsort_vla.runtime.manifest import GRAPHS
from einsort_vla.runtime.onnx import OnnxSession

Say = Callable[[str], None]
Keys = Sequence[Path]  # of makers that the user trusts; none: of anyone
# A weight, while ONNX Runtime decodes a part without the native library, and after it.
DECODING_BYTES, FLOAT_BYTES = 80, 4
# Beside weights: ONNX Runtime and dense tensors; and what one observation of a batch takes.
MORE_BYTES, BATCH_BYTES = 2**30, 2**28
RUNTIMES = ("auto", "tensorrt", "onnx")


def build(folder: Path, keys: Keys, say: Say) -> int:
    """Build the engines; 0 if every coded layer is one of the plugin's."""
    bundle = open_bundle(folder, keys)
    receipt = build_engines(bundle, lambda part: say(f"building the engine of {part}"))
    for part, facts in receipt.parts.items():
        say(
            f"{part}: {facts.bytes / 1e6:.2f} MB, {facts.layers.get('PLUGIN_V3', 0)} plugin "
            f"layers, {facts.seconds:.1f} s"
        )
    return _tell(audit_bundle(bundle), say)


def verify(folder: Path, runtime: str, keys: Keys, say: Say) -> int:
    """Compare actions with the stored ones; 0 if they are near enough."""
    bundle = open_bundle(folder, keys)
    name, session = _session(bundle, runtime, say)
    if isinstance(session, OnnxSession):
        precision = session.precision
    else:
        precision = str(bundle.manifest.precision.engines)
    with _bounded(bundle, session):
        found = measure.nearness(bundle, session, precision)
    _write_receipt(folder, "verify", name, found)
    if found["cosine"] is None:
        say(f"{name}: FAILED: actions are not finite.")
        return 1
    say(
        f"{name}, {found['samples']} observations: cosine {found['cosine']:.7f} with PyTorch's "
        f"float32 actions, relative error {found['relative_error']:.1e}, largest "
        f"{found['max_error']:.1e} (needed: {found['needed']['cosine']}, "
        f"{found['needed']['relative_error']:.0e}): " + ("passed" if found["passed"] else "FAILED")
    )
    return 0 if found["passed"] else 1


def bench(folder: Path, runtime: str, n: int, keys: Keys, say: Say) -> int:
    """Time the parts and whole chunks."""
    if n < 1:
        raise UsageError("--n must be at least 1.")
    bundle = open_bundle(folder, keys)
    name, session = _session(bundle, runtime, say)
    on_gpu, imported = name != "onnx", measure.resident_bytes()
    with (
        _bounded(bundle, session),
        measure.Power() if on_gpu else contextlib.nullcontext() as power,
    ):
        found: dict[str, Any] = {"latency_ms": measure.latency(bundle, session, n)}
    resident = measure.resident_bytes()
    found |= measure.memory(on_gpu) | {"power_w": power.mean_w if power else None, "threads": 1}
    if isinstance(session, ChunkSession):
        found["cuda_graph"] = session.is_one_graph
    if receipt := read_receipt(bundle):
        found["engine_bytes"] = {part: facts.bytes for part, facts in receipt.parts.items()}
    if isinstance(session, OnnxSession) and imported is not None and resident is not None:
        found |= {"resident_bytes": resident - imported, "stream_bytes": _stream_bytes(bundle)}
    found["source"] = asdict(bundle.manifest.source)  # a receipt is carried away from its bundle
    path = _write_receipt(folder, "bench", name, found)
    for part, ms in found["latency_ms"].items():
        say(
            f"{part}: p50 {ms['p50']:.2f} ms, p95 {ms['p95']:.2f}, p99 {ms['p99']:.2f} "
            f"(n = {ms['n']})"
        )
    if "resident_bytes" in found:
        say(
            f"resident after it {found['resident_bytes'] / 1e6:.1f} MB more than after importing; "
            f"the coded streams have {found['stream_bytes'] / 1e6:.1f} MB"
        )
    say(f"process memory {found['process_bytes'] / 1e6:.0f} MB at most; receipt: {path}")
    return 0


def audit(folder: Path, keys: Keys, say: Say) -> int:
    """List every coded layer with what runs it; 0 if none became dense."""
    found = audit_bundle(open_bundle(folder, keys))
    for row in found.rows:
        say(f"{row.part:13} {row.requested:24} {row.executed:13} {row.n_bytes:>9} B  {row.name}")
    for name in found.kept:
        say(f"{'(any)':13} {'without error':24} {'dense':13} {'':>9}    {name}")
    return _tell(found, say)


def _tell(found: Audit, say: Say) -> int:
    for size in found.sizes:
        say(
            f"{size.part}: engine of {size.engine / 1e6:.2f} MB, {size.texts / 1e6:.2f} of them "
            f"the builder's texts; the rest is {size.ratio:.3f} times streams and other weights"
        )
    if failures := found.failures:
        for failure in failures:
            say(f"FAILED: {failure}")
        return 1
    say(f"audit of {found.what}: all {len(found.rows)} coded layers compute on their streams")
    return 0


def _session(bundle: Bundle, runtime: str, say: Say) -> tuple[str, Session | ChunkSession]:
    if runtime not in RUNTIMES:
        raise UsageError(f"unknown runtime {runtime!r}. Valid: {', '.join(RUNTIMES)}.")
    has_engines, is_ours = read_receipt(bundle) is not None, were_built_here(bundle)
    if runtime == "auto" and has_engines and not is_ours:
        say("The engines were not built here, so ONNX Runtime runs. --runtime tensorrt loads them.")
    if runtime == "tensorrt" or (runtime == "auto" and is_ours):
        from einsort_vla.runtime.tensorrt import EngineSession

        return "tensorrt", EngineSession(bundle)
    return "onnx", OnnxSession(bundle)


def _stream_bytes(bundle: Bundle) -> int:
    """Of all coded layers; one that several parts run counts once."""
    layers = {layer.name: layer.bytes for part in bundle.parts.values() for layer in part.layers}
    return sum(layers.values())


def _bounded(
    bundle: Bundle, session: Session | ChunkSession
) -> contextlib.AbstractContextManager[None]:
    """No more memory than the size of the bundle explains, nor than is free."""
    if not isinstance(session, OnnxSession):  # drivers reserve addresses of all the machine's
        return contextlib.nullcontext()
    # Of each part what is not coded is held as it is, and again in the order that products take.
    stored = sum(path.stat().st_size for path in (bundle.folder / GRAPHS).iterdir())
    explained = 2 * len(bundle.parts) * stored
    if not session.is_coded:
        weights = [sum(layer.weights for layer in part.layers) for part in bundle.parts.values()]
        explained += 2 * (DECODING_BYTES * max(weights) + FLOAT_BYTES * sum(weights))
    explained += MORE_BYTES + bundle.manifest.batch.size * BATCH_BYTES
    return measure.at_most(min(explained, measure.available_bytes() or explained))


def _write_receipt(folder: Path, command: str, runtime: str, found: dict[str, Any]) -> Path:
    path = folder / ENGINES / f"{command}-{runtime}.json"
    path.parent.mkdir(exist_ok=True)
    facts = {
        "runtime": runtime, "machine": platform.machine(), "board": _board(),
        "python": platform.python_version(), "time": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }  # fmt: skip
    write_text(path, json.dumps({**facts, **found}, indent=1) + "\n")
    return path


def _board() -> str:
    """The board's name where it tells, else the processor's."""
    model = Path("/proc/device-tree/model")
    try:
        if model.is_file():
            return model.read_text(encoding="utf-8").strip("\0\n")
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        return named[0] if named else platform.processor()
    except OSError:
        return platform.processor()
