"""What a whole policy costs with each backend: one chunk of actions, beside the uncompressed one.

python benchmarks/bench_policy.py --backends decoded cpu --json policy.json

Policies take turns, a chunk each, so that whatever else the machine does meets all of them. The
chunk is LeRobot's, with its processors; observations are made up.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: the root of the checkout
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import json
import tempfile
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.timing import check_device, device_name, time_ms
from einsort_vla.atomic import check_new
from einsort_vla.checkpoint import DenseFolder, compress_folder, plan_folder
from einsort_vla.cli.run import run_command
from einsort_vla.codec import Codec
from einsort_vla.errors import UsageError
from einsort_vla.kernels import BackendChoice
from einsort_vla.layers import count_backends
from einsort_vla.lerobot import LoadedPolicy, load_policy
from eval.closed_loop.request import find_policy
from eval.closed_loop.settings import REFERENCE_POLICY

DENSE = "uncompressed"
BACKENDS = {"cpu": ("decoded", "cpu"), "cuda": ("decoded", "cuda")}


@dataclass(frozen=True)
class Settings:
    """Time chunks of a compressed policy with each backend against the uncompressed policy."""

    policy: str = REFERENCE_POLICY
    """A dense LeRobot policy folder or hub id."""
    rate: float = 0.75
    """Share of bytes removed."""
    codec: str = "curve"
    """A codec form, with options of its menu."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where; LeRobot's policies run in float32 there."""
    backends: tuple[str, ...] = ()
    """Backends to time; without, `decoded` and the compiled ones of the device."""
    n: int = 25
    """Chunks of each."""
    threads: int = 1
    """Threads of torch."""
    json: Path | None = None
    """File for the rows."""


def main(settings: Settings, console: Console) -> int:
    """Print the table, write what was asked for."""
    if settings.json is not None:
        check_new(settings.json)
    if settings.n < 1:
        raise UsageError(f"--n is {settings.n}; at least one chunk is timed.")
    check_device(settings.device)
    backends = list(settings.backends or BACKENDS[settings.device])
    for backend in backends:
        BackendChoice.parse(backend)
    torch.set_num_threads(settings.threads)
    dense = find_policy(settings.policy)
    policies = _load(dense, backends, settings)
    observation = policies[DENSE].made_up_observations(1)[0]

    def chunk(policy: LoadedPolicy) -> Any:
        return lambda: policy.chunk(observation, 0)

    found: dict[str, list[float]] = {name: [] for name in policies}
    for policy in policies.values():
        time_ms(chunk(policy), settings.device)  # caches, buffers and compilation
    for _ in track(range(settings.n), "measuring", console=console, transient=True):
        for name, policy in policies.items():
            found[name].append(time_ms(chunk(policy), settings.device))
    rows = [_row(name, found, policies[name], settings) for name in policies]
    _print(rows, console)
    if settings.json is not None:
        settings.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


def _load(dense: DenseFolder, backends: list[str], settings: Settings) -> dict[str, LoadedPolicy]:
    policies = {DENSE: load_policy(str(dense.folder), settings.device)}
    with tempfile.TemporaryDirectory() as folder:
        compressed = Path(folder) / "compressed"
        plan = plan_folder(dense, settings.rate, Codec.parse(settings.codec))
        compress_folder(dense, compressed, plan)
        for backend in backends:
            policies[backend] = load_policy(str(compressed), settings.device, backend)
    return policies


def _row(
    name: str, found: dict[str, list[float]], policy: LoadedPolicy, settings: Settings
) -> dict[str, Any]:
    median, p95 = np.percentile(found[name], [50, 95])
    return {
        "device": device_name(settings.device), "threads": settings.threads,
        "policy": settings.policy, "rate": settings.rate, "codec": settings.codec,
        "backend": name, "layers": count_backends(policy.module), "n": settings.n,
        "chunk_size": policy.chunk_size, "median_ms": float(median), "p95_ms": float(p95),
        "speed_up": float(np.median(found[DENSE]) / median),
    }  # fmt: skip


def _print(rows: list[dict[str, Any]], console: Console) -> None:
    first = rows[0]
    console.print(
        f"{first['device']}, {first['threads']} threads, {first['policy']} at rate "
        f"{first['rate']}, chunks of {first['chunk_size']} actions, n = {first['n']}"
    )
    table = Table("backend", "layers", "median ms", "p95 ms", "times as fast")
    for row in rows:
        layers = ", ".join(f"{n} {name}" for name, n in row["layers"].items())
        table.add_row(
            row["backend"], layers, f"{row['median_ms']:.1f}", f"{row['p95_ms']:.1f}",
            f"{row['speed_up']:.2f}",
        )  # fmt: skip
    console.print(table)


if __name__ == "__main__":
    run_command(Settings, main, "benchmarks/bench_policy.py")
