"""What each backend costs: one product at the shapes of real policies, beside dense float32.

python benchmarks/bench_kernels.py --backends cpu --json kernels.json

Copies of each matrix are used in turn, more than the caches hold: in a policy every layer comes to
its turn cold. Each backend is first compared with the product in float64.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: the root of the checkout
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from torch.nn import functional

from einsort_vla.checkpoint import check_new
from einsort_vla.cli.run import run_command
from einsort_vla.codec import CodecSpec, CompressedTensor, Leader, decode, encode
from einsort_vla.errors import NumericsError
from einsort_vla.kernels import Backend, check_backend, make_backend

SHAPES = {
    "SmolVLA text up": (2560, 960),
    "SmolVLA expert down": (720, 2048),
    "SmolVLA vision": (3072, 768),
    "pi0.5 expert": (4096, 1024),
    "square": (2048, 2048),
}  # (out_features, in_features)
SPECS = (Leader(2, 2, 6), Leader(2, 4, 4), Leader(2, 6, 2))  # 2, 3 and 4 bits
CACHE_BYTES = 256 * 2**20  # more than the last-level cache of desktop and server processors
TOLERANCE = 1e-5
MIN_SECONDS, MIN_CALLS = 0.2, 12


@dataclass(frozen=True)
class Settings:
    """Time backends against `nn.Linear` in float32, in the same process."""

    backends: tuple[str, ...] = ("cpu",)
    """Backends to time."""
    rows: tuple[int, ...] = (1, 4, 16, 50, 128)
    """Numbers of input rows (tokens)."""
    threads: int = 1
    """Threads of torch."""
    json: Path | None = None
    """File for the rows."""


def main(settings: Settings, console: Console) -> int:
    """Print the table, write what was asked for."""
    if settings.json is not None:
        check_new(settings.json)
    for backend in settings.backends:
        check_backend(backend)
    torch.set_num_threads(settings.threads)
    cases = [(name, spec) for name in SHAPES for spec in SPECS]
    found = [
        row
        for name, spec in track(cases, "measuring", console=console, transient=True)
        for row in _measure(name, spec, settings)
    ]
    _print(found, console)
    if settings.json is not None:
        settings.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


def _measure(name: str, spec: CodecSpec, settings: Settings) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(SHAPES[name], generator=generator)
    compressed = encode(weight, spec)
    weight = decode(compressed)
    dense_copies = [weight.clone() for _ in range(_n_copies(weight.nbytes))]
    rows = []
    for n in settings.rows:
        x = torch.randn(n, weight.shape[1], generator=generator)
        dense_ms = _median_ms([lambda w=w, x=x: functional.linear(x, w) for w in dense_copies])
        for backend in settings.backends:
            made = [make_backend(backend, copy) for copy in _copies(compressed)]
            _check(made[0], x, weight)
            ms = _median_ms([lambda b=b, x=x: b.linear(x, None) for b in made])
            rows.append({
                "shape": name, "out_features": weight.shape[0], "in_features": weight.shape[1],
                "spec": str(spec), "rows": n, "backend": backend, "threads": settings.threads,
                "ms": ms, "dense_float32_ms": dense_ms, "speed_up": dense_ms / ms,
                "coded_gb_per_s": compressed.stored_bits / 8e6 / ms,
            })  # fmt: skip
    return rows


def _n_copies(n_bytes: int) -> int:
    return -(-CACHE_BYTES // n_bytes)


def _copies(compressed: CompressedTensor) -> list[CompressedTensor]:
    n = _n_copies(compressed.stored_bits // 8)
    return [
        CompressedTensor(
            compressed.spec, compressed.shape, {k: v.clone() for k, v in compressed.parts.items()}
        )
        for _ in range(n)
    ]


def _check(backend: Backend, x: Tensor, weight: Tensor) -> None:
    expected = x.double() @ weight.double().t()
    error = float((backend.linear(x, None).double() - expected).norm() / expected.norm())
    if error > TOLERANCE:
        raise NumericsError(f"{type(backend).__name__} is wrong: relative error {error:.1e}.")


def _median_ms(calls: list[Callable[[], Any]]) -> float:
    """Of single calls, each call with another copy than the one before."""
    calls[0]()
    times, k, end = [], 0, time.perf_counter() + MIN_SECONDS
    while time.perf_counter() < end or len(times) < MIN_CALLS:
        start = time.perf_counter()
        calls[k % len(calls)]()
        times.append(1e3 * (time.perf_counter() - start))
        k += 1
    return statistics.median(times)


def _print(rows: list[dict[str, Any]], console: Console) -> None:
    table = Table("shape", "code", "rows", "backend", "ms", "dense ms", "times as fast")
    for row in rows:
        table.add_row(
            f"{row['shape']} {row['out_features']}x{row['in_features']}", row["spec"],
            str(row["rows"]), row["backend"], f"{row['ms']:.2f}",
            f"{row['dense_float32_ms']:.2f}", f"{row['speed_up']:.2f}",
        )  # fmt: skip
    console.print(table)


if __name__ == "__main__":
    run_command(Settings, main, "benchmarks/bench_kernels.py")
