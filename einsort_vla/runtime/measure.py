"""What `verify` and `bench` measure: nearness to PyTorch's actions, time, memory, power."""

import contextlib
import resource
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np

from einsort_vla.errors import MissingDependency
from einsort_vla.runtime import gpu
from einsort_vla.runtime.bundle import SAMPLES, Bundle
from einsort_vla.runtime.flow import Session, sample_actions

ACTIONS = "actions"
# Of the actions against float32 in PyTorch. Engines in 16 bits: what GR00T's deployment asks for.
COSINE = {"float32": 0.999999, "float16": 0.999, "bfloat16": 0.999}
WARM_UP = 5
_JETSON_POWER = "/sys/bus/i2c/drivers/ina3221"


def samples(bundle: Bundle) -> list[dict[str, np.ndarray]]:
    """What was stored to verify with, each as a batch of the bundle's size."""
    stored = np.load(bundle.folder / SAMPLES)
    batch = bundle.manifest["batch"]
    size = 1 if batch["dynamic"] else batch["size"]
    return [
        {name: np.repeat(stored[name][k : k + 1], size, 0) for name in stored.files}
        for k in range(len(stored[ACTIONS]))
    ]


def nearness(bundle: Bundle, session: Session, precision: str) -> dict[str, Any]:
    """The actions against those that PyTorch found in float32.

    Returns:
        `cosine` (the least), `max_error` (normalized units), `needed` and `passed`.
    """
    cosines, errors = [], []
    for sample in samples(bundle):
        found = sample_actions(session, sample, bundle.manifest["policy"]["n_steps"])
        a, b = (x.astype(np.float64).ravel() for x in (found, sample[ACTIONS]))
        cosines.append(float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-30)))
        errors.append(float(np.abs(a - b).max()))
    needed = COSINE[precision]
    return {
        "samples": len(cosines), "cosine": min(cosines), "max_error": max(errors),
        "needed": needed, "passed": bool(min(cosines) >= needed),
    }  # fmt: skip


def latency(bundle: Bundle, session: Session, n: int) -> dict[str, dict[str, float]]:
    """Milliseconds (p50, p95, p99) of each part, and of a chunk of actions as a whole."""
    timed = _Timed(session)
    sample, n_steps = samples(bundle)[0], bundle.manifest["policy"]["n_steps"]
    for _ in range(WARM_UP):
        sample_actions(session, sample, n_steps)
    whole = []
    for _ in range(n):
        started = time.perf_counter()
        sample_actions(timed, sample, n_steps)
        whole.append(1e3 * (time.perf_counter() - started))
    return {name: _percentiles(ms) for name, ms in {**timed.ms, "whole chunk": whole}.items()}


def memory() -> dict[str, int]:
    """Bytes: the most this process has held, and what is in use on the GPU, where there is one."""
    found = {"process_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}
    with contextlib.suppress(MissingDependency):
        found["gpu_bytes_in_use"] = gpu.used_bytes()
    return found


def available_bytes() -> int | None:
    """Memory that is free for this process; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return 1024 * int(found[0]) if found else None


def power_w() -> float | None:
    """Watts at this moment, where the board or the driver tells; else None."""
    rails = [
        int(volts.read_text()) * int(amperes.read_text()) / 1e6
        for volts in Path(_JETSON_POWER).glob("*/hwmon/hwmon*/in1_input")
        if (amperes := volts.with_name("curr1_input")).is_file()
    ]  # the first rail of a Jetson is its input
    if rails:
        return rails[0]
    try:
        query = ["nvidia-smi", "--query-gpu=power.draw", "--format=csv,noheader,nounits", "-i", "0"]
        return float(subprocess.run(query, capture_output=True, text=True, check=True).stdout)
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None


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
