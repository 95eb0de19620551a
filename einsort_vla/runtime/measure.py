"""What `verify` and `bench` measure: nearness to PyTorch's actions, time, memory, power."""

import contextlib
import resource
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from einsort_vla.errors import EinSortError
from einsort_vla.runtime import gpu
from einsort_vla.runtime.bundle import Bundle
from einsort_vla.runtime.flow import Arrays, ChunkSession, Session, sample_actions
from einsort_vla.runtime.manifest import ACTIONS
from einsort_vla.runtime.samples import samples

WHOLE_CHUNK = "whole chunk"  # in receipts, beside the parts
# Of the actions against float32 in PyTorch: the least cosine, the largest relative error. For
# engines in 16 bits the cosine is what GR00T's deployment asks for. The native library rounds the
# inputs of coded layers to int16.
GATES = {
    "float32": (0.999999, 1e-4), "int16": (0.999999, 1e-3), "float16": (0.999, 0.03),
    "bfloat16": (0.999, 0.03),
}  # fmt: skip
WARM_UP = 5
POWER_EVERY_S = 0.1
_JETSON_POWER = "/sys/bus/i2c/drivers/ina3221"


def nearness(bundle: Bundle, session: Session | ChunkSession, precision: str) -> dict[str, Any]:
    """The actions of the robot against those that PyTorch found in float32.

    Returns:
        `cosine` (the least), `relative_error` and `max_error` (the largest; normalized units),
        what is `needed`, and `passed`. Numbers are None if an action is not finite.
    """
    facts = bundle.manifest.policy
    cosines, relative, errors = [], [], []
    for sample in samples(bundle):
        actions = sample_actions(session, sample, facts.n_steps)
        a, b = (np.float64(x[..., : facts.action_size]).ravel() for x in (actions, sample[ACTIONS]))
        norms = np.linalg.norm(a), np.linalg.norm(b)
        cosines.append(a @ b / (norms[0] * norms[1] + 1e-30))
        relative.append(np.linalg.norm(a - b) / (norms[1] + 1e-30))
        errors.append(np.abs(a - b).max())
    found = {"cosine": min(cosines), "relative_error": max(relative), "max_error": max(errors)}
    is_finite = bool(np.isfinite([*cosines, *relative, *errors]).all())
    cosine, error = GATES[precision]
    passed = is_finite and found["cosine"] >= cosine and found["relative_error"] <= error
    return {
        "samples": len(cosines),
        **{name: float(value) if is_finite else None for name, value in found.items()},
        "needed": {"cosine": cosine, "relative_error": error},
        "passed": bool(passed),
    }


def latency(bundle: Bundle, session: Session | ChunkSession, n: int) -> dict[str, dict[str, float]]:
    """Milliseconds (p50, p95, p99) of each part, and of a chunk of actions as a whole."""
    timed = session if isinstance(session, ChunkSession) else _Timed(session)
    sample, n_steps = next(samples(bundle)), bundle.manifest.policy.n_steps
    for _ in range(WARM_UP):
        sample_actions(session, sample, n_steps)
    whole = []
    for _ in range(n):
        started = time.perf_counter()
        sample_actions(timed, sample, n_steps)
        whole.append(1e3 * (time.perf_counter() - started))
    ms = timed.ms if isinstance(timed, _Timed) else _of_parts(timed, sample, n)
    return {name: _percentiles(ms) for name, ms in {**ms, WHOLE_CHUNK: whole}.items()}


def _of_parts(session: ChunkSession, sample: Arrays, n: int) -> dict[str, list[float]]:
    ms: dict[str, list[float]] = {}
    for _ in range(n):
        for part, seconds in session.part_seconds(sample):
            ms.setdefault(part, []).append(1e3 * seconds)
    return ms


def memory(on_gpu: bool) -> dict[str, int]:
    """Bytes: the most this process has held, and what is in use on the GPU."""
    found = {"process_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}
    if on_gpu:
        with contextlib.suppress(EinSortError):
            found["gpu_bytes_in_use"] = gpu.used_bytes()
    return found


def resident_bytes() -> int | None:
    """What of this process lies in memory now, files that it has mapped included; None where the
    system does not tell."""
    return _status("VmRSS")


def available_bytes() -> int | None:
    """Memory that is free for this process; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return 1024 * int(found[0]) if found else None


@contextlib.contextmanager
def at_most(n_bytes: int) -> Iterator[None]:
    """Within it this process gets at most so many bytes more, where the system can hold it to that.

    A graph is a program: whoever made it says how much memory it asks for.
    """
    held = _status("VmData")
    before, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if held is None or before != resource.RLIM_INFINITY:  # the user has set a limit
        yield
        return
    resource.setrlimit(resource.RLIMIT_DATA, (held + n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, hard))


def _status(name: str) -> int | None:
    """Bytes, by what Linux says of this process."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return 1024 * int(found[0]) if found else None


class Power:
    """Samples the board's power while it is entered."""

    def __enter__(self) -> "Power":
        self._watts: list[float] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def mean_w(self) -> float | None:
        """Watts, where the board or the driver tells; else None."""
        return sum(self._watts) / len(self._watts) if self._watts else None

    def _sample(self) -> None:
        while (watts := _power_w()) is not None and not self._ended.wait(POWER_EVERY_S):
            self._watts.append(watts)


def _power_w() -> float | None:
    rails = _jetson_rails()
    if rails:
        return rails.get("VDD_IN", sum(rails.values()))  # its input, else all there are
    try:
        query = ["nvidia-smi", "--query-gpu=power.draw", "--format=csv,noheader,nounits", "-i", "0"]
        return float(subprocess.run(query, capture_output=True, text=True, check=True).stdout)
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None


def _jetson_rails() -> dict[str, float]:
    """Watts by the rail's name."""
    rails = {}
    for label in sorted(Path(_JETSON_POWER).glob("*/hwmon/hwmon*/in*_label")):
        number = label.name[len("in") : -len("_label")]
        with contextlib.suppress(OSError, ValueError):
            millivolts = int(label.with_name(f"in{number}_input").read_text())
            milliamperes = int(label.with_name(f"curr{number}_input").read_text())
            rails[label.read_text().strip()] = millivolts * milliamperes / 1e6
    return rails


class _Timed:
    def __init__(self, session: Session) -> None:
        self._session = session
        self.ms: dict[str, list[float]] = {}

    def run(self, part: str, inputs: Any) -> dict[str, np.ndarray]:
        started = time.perf_counter()
        found = self._session.run(part, inputs)
        self.ms.setdefault(part, []).append(1e3 * (time.perf_counter() - started))
        return found


def _percentiles(ms: list[float]) -> dict[str, float]:
    points = np.percentile(ms, [50, 95, 99])
    return {"p50": float(points[0]), "p95": float(points[1]), "p99": float(points[2]), "n": len(ms)}
