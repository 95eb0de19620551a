"""What each backend costs: one product at the shapes of real policies, beside dense weights.

python benchmarks/bench_kernels.py --backends cpu --json kernels.json
python benchmarks/bench_kernels.py --device cuda

Copies of each matrix are used in turn, more than the caches hold: in a policy every layer comes to
its turn cold. Each backend is first compared with the product in float64.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: the root of the checkout
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import json
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from torch.nn import functional

from benchmarks.timing import check_device, device_name, memory_gb_per_s, times_ms
from einsort_vla.checkpoint import check_new
from einsort_vla.cli.run import run_command
from einsort_vla.codec import CodecSpec, CompressedTensor, Leader, decode, encode
from einsort_vla.errors import NumericsError, UsageError
from einsort_vla.kernels import Backend, check_backend, make_backend

CPU_SHAPES = {
    "SmolVLA text up": (2560, 960),
    "SmolVLA expert down": (720, 2048),
    "SmolVLA vision": (3072, 768),
    "pi0.5 expert": (4096, 1024),
    "square": (2048, 2048),
}  # (out_features, in_features)
GPU_SHAPES = CPU_SHAPES | {
    "pi0.5 text up": (16384, 2048),
    "pi0.5 text down": (2048, 16384),
    "GR00T text up": (6144, 2048),
    "GR00T action feed-forward": (6144, 1536),
}
SHAPES = {"cpu": CPU_SHAPES, "cuda": GPU_SHAPES}
ROWS = {"cpu": (1, 4, 16, 50, 128), "cuda": (1, 4, 16, 50, 128, 512, 1024)}
BACKENDS = {"cpu": ("cpu",), "cuda": ("cuda", "triton")}
DTYPES = {"cpu": torch.float32, "cuda": torch.bfloat16}  # of activations and of the dense baseline
SPECS = (Leader(2, 2, 6), Leader(2, 4, 4), Leader(2, 6, 2))  # 2, 3 and 4 bits
CACHE_BYTES = 256 * 2**20  # more than the last-level cache of desktop and server processors
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
MIN_SECONDS, MIN_CALLS = 0.2, 12


@dataclass(frozen=True)
class Settings:
    """Time backends against `nn.Linear`, float32 on a CPU, bfloat16 on a GPU, in one process."""

    device: Literal["cpu", "cuda"] = "cpu"
    """Where."""
    backends: tuple[str, ...] = ()
    """Backends to time; without, `cpu` on a CPU, `cuda` and `triton` on a GPU."""
    rows: tuple[int, ...] = ()
    """Numbers of input rows (tokens); without, 1 to 128 on a CPU, to 1024 on a GPU."""
    shapes: tuple[str, ...] = ()
    """Shapes, as OUTxIN; without, those of SmolVLA and pi0.5, on a GPU also of GR00T."""
    threads: int = 1
    """Threads of torch."""
    json: Path | None = None
    """File for the rows."""


def main(settings: Settings, console: Console) -> int:
    """Print the table, write what was asked for."""
    if min((settings.threads, *settings.rows)) < 1:
        raise UsageError("--threads and --rows must be at least 1.")
    shapes = {text: _shape(text) for text in settings.shapes} or SHAPES[settings.device]
    if settings.json is not None:
        check_new(settings.json)
    check_device(settings.device)
    backends = settings.backends or BACKENDS[settings.device]
    for backend in backends:
        check_backend(backend)
    torch.set_num_threads(settings.threads)
    memory = memory_gb_per_s(settings.device)
    console.print(
        f"{device_name(settings.device)}, {settings.threads} threads, memory {memory:.1f} GB/s, "
        f"dense in {DTYPES[settings.device]}, torch {torch.__version__}"
    )
    cases = [(name, shape, spec) for name, shape in shapes.items() for spec in SPECS]
    found = [
        row
        for name, shape, spec in track(cases, "measuring", console=console, transient=True)
        for row in _measure(name, shape, spec, backends, settings, memory)
    ]
    _print(found, console)
    if settings.json is not None:
        settings.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


def _shape(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9][0-9]*)x([1-9][0-9]*)", text)
    if found is None:
        raise UsageError(f"--shapes {text!r}: a shape is OUTxIN, as 2560x960.")
    return int(found[1]), int(found[2])


def _measure(
    name: str, shape: Sequence[int], spec: CodecSpec, backends: Sequence[str], settings: Settings,
    memory: float,
) -> list[dict[str, Any]]:  # fmt: skip
    device, dtype = settings.device, DTYPES[settings.device]
    generator = torch.Generator().manual_seed(0)
    compressed = encode(torch.randn(*shape, generator=generator), spec)
    weight = decode(compressed)
    dense = weight.to(device, dtype)
    dense_copies = [dense.clone() for _ in range(_n_copies(dense.nbytes))]
    coded_bytes = compressed.stored_bits // 8
    rows = []
    for n in settings.rows or ROWS[device]:
        x = torch.randn(n, shape[1], generator=generator).to(device, dtype)
        dense_ms = _median_ms([lambda w=w, x=x: functional.linear(x, w) for w in dense_copies],
                              device)  # fmt: skip
        for backend in backends:
            made = _copies(backend, compressed, device, dense.nbytes)
            _check(made[0], x, weight)
            ms = _median_ms([lambda b=b, x=x: b.linear(x, None) for b in made], device)
            rows.append({
                "device": device_name(device), "shape": name, "out_features": shape[0],
                "in_features": shape[1], "spec": str(spec), "rows": n, "backend": made[0].name,
                "threads": settings.threads, "ms": ms, "dense_ms": dense_ms,
                "dense_type": str(dtype).removeprefix("torch."), "speed_up": dense_ms / ms,
                "coded_gb_per_s": coded_bytes / 1e6 / ms, "memory_gb_per_s": memory,
                "share_of_roofline": coded_bytes / 1e6 / ms / memory,
            })  # fmt: skip
    return rows


def _n_copies(n_bytes: int) -> int:
    return -(-CACHE_BYTES // n_bytes)


def _copies(
    backend: str, compressed: CompressedTensor, device: str, dense_bytes: int
) -> list[Backend]:
    """As many as its weights need: `auto` may turn out to be `dense`, which reads them decoded."""

    def make() -> Backend:
        parts = {name: part.to(device, copy=True) for name, part in compressed.parts.items()}
        return make_backend(backend, CompressedTensor(compressed.spec, compressed.shape, parts))

    first = make()
    n = _n_copies(dense_bytes if first.name == "dense" else compressed.stored_bits // 8)
    return [first, *(make() for _ in range(n - 1))]


def _check(backend: Backend, x: Tensor, weight: Tensor) -> None:
    expected = x.cpu().double() @ weight.double().t()
    missing = backend.linear(x, None).cpu().double() - expected
    error = float(missing.norm() / expected.norm())
    if not error <= TOLERANCE[x.dtype]:  # nor if it is NaN
        raise NumericsError(f"--backend {backend.name} is wrong: relative error {error:.1e}.")


def _median_ms(calls: list[Any], device: str) -> float:
    """Of single calls, each call with another copy than the one before."""
    return statistics.median(times_ms(calls, device, MIN_SECONDS, MIN_CALLS))


def _print(rows: list[dict[str, Any]], console: Console) -> None:
    table = Table("shape", "code", "rows", "backend", "ms", "GB/s coded", "% of roofline",
                  "dense ms", "times as fast")  # fmt: skip
    for row in rows:
        table.add_row(
            f"{row['shape']} {row['out_features']}x{row['in_features']}", row["spec"],
            str(row["rows"]), row["backend"], f"{row['ms']:.3f}", f"{row['coded_gb_per_s']:.1f}",
            f"{100 * row['share_of_roofline']:.0f}", f"{row['dense_ms']:.3f}",
            f"{row['speed_up']:.2f}",
        )  # fmt: skip
    console.print(table)


if __name__ == "__main__":
    run_command(Settings, main, "benchmarks/bench_kernels.py")
