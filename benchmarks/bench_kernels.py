"""What each backend costs: one product at the shapes of real policies, beside dense weights.

python benchmarks/bench_kernels.py --backends cpu --json kernels.json
python benchmarks/bench_kernels.py --device cuda

Copies of each matrix are used in turn, more than the caches hold: in a policy every layer comes to
its turn cold. Their streams are random, which is as valid as any code. Each backend is first
compared with the product in float64. On a CPU, ONNX Runtime's products stand beside: float32, and
2 or 4 bits in blocks of 32 with inputs of int8.

On a CPU `ms` is the median of single calls. On a GPU it is the time of the GPU alone: a CUDA graph
holds at least 64 calls, one copy after the other, and is replayed; `eager_ms` is the median of
single calls from Python, which mostly launch. The dense product is timed in the same two ways.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: the root of the checkout
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import contextlib
import json
import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional

from benchmarks.peers import OnnxPeer, bytes_of
from benchmarks.timing import check_device, device_name, graph_ms, memory_gb_per_s, times_ms
from einsort_vla.atomic import check_new
from einsort_vla.cli.run import run_command
from einsort_vla.codec import CompressedTensor, Curve, decode
from einsort_vla.errors import NumericsError, UsageError
from einsort_vla.kernels import DECODED, Backend, BackendChoice, make_backend

CPU_SHAPES = {
    "SmolVLA text up": (2560, 960),
    "SmolVLA expert down": (720, 2048),
    "SmolVLA vision": (3072, 768),
    "pi0.5 expert": (4096, 1024),
    "square": (2048, 2048),
    "large square": (4096, 4096),
}  # (out_features, in_features)
GPU_SHAPES = CPU_SHAPES | {
    "pi0.5 text up": (16384, 2048),
    "pi0.5 text down": (2048, 16384),
    "GR00T text up": (6144, 2048),
    "GR00T action feed-forward": (6144, 1536),
}
SHAPES = {"cpu": CPU_SHAPES, "cuda": GPU_SHAPES}
ROWS = {"cpu": (1, 4, 16, 50, 128), "cuda": (1, 4, 16, 50, 128, 512, 1024)}
BACKENDS = {"cpu": ("cpu",), "cuda": ("cuda",)}
DTYPES = {"cpu": torch.float32, "cuda": torch.bfloat16}  # of activations and of the dense baseline
BITS = (2.0, 3.0, 4.0)
SPECS = {  # inputs are turned by torch on a GPU, which is timed by itself there
    "cpu": tuple(Curve(bits, rotated=True) for bits in BITS),
    "cuda": tuple(Curve(bits) for bits in BITS),
}
PEERS = {2.0: (32, 2), 4.0: (4,)}  # bits of ONNX Runtime's beside those of ours
CACHE_BYTES = {"cpu": 256 * 2**20, "cuda": 128 * 2**20}  # more than the last-level caches hold
TOLERANCE = {torch.float32: 5e-5, torch.bfloat16: 1e-2}  # inputs are rounded to 16 bits
MIN_SECONDS, MIN_CALLS = {"cpu": 0.2, "cuda": 0.005}, 12


@dataclass(frozen=True)
class Settings:
    """Time backends against `nn.Linear`, float32 on a CPU, bfloat16 on a GPU, in one process."""

    device: Literal["cpu", "cuda"] = "cpu"
    """Where."""
    backends: tuple[str, ...] = ()
    """Backends to time, with options: "cuda decode_from=33"; without, `cpu` on a CPU, `cuda` on a
    GPU."""
    rows: tuple[int, ...] = ()
    """Numbers of input rows (tokens); without, 1 to 128 on a CPU, to 1024 on a GPU."""
    shapes: tuple[str, ...] = ()
    """Shapes, as OUTxIN; without, those of SmolVLA and pi0.5, on a GPU also of GR00T."""
    threads: int = 1
    """Threads of torch."""
    json: Path | None = None
    """File for the rows, one JSON object a line, each written as it is measured."""


def main(settings: Settings, console: Console) -> int:
    """Print rows as they come, and write them if that was asked for."""
    if min((settings.threads, *settings.rows)) < 1:
        raise UsageError("--threads and --rows must be at least 1.")
    shapes = {text: _shape(text) for text in settings.shapes} or SHAPES[settings.device]
    if settings.json is not None:
        check_new(settings.json)
    check_device(settings.device)
    backends = [
        BackendChoice.parse(text) for text in settings.backends or BACKENDS[settings.device]
    ]
    torch.set_num_threads(settings.threads)
    memory = memory_gb_per_s(settings.device)
    console.print(
        f"{device_name(settings.device)}, {settings.threads} threads, memory {memory:.1f} GB/s, "
        f"dense in {DTYPES[settings.device]}, torch {torch.__version__}"
    )
    console.print(HEADER, highlight=False)
    with settings.json.open("x") if settings.json else contextlib.nullcontext() as file:
        for name, shape in shapes.items():
            for spec in SPECS[settings.device]:
                for row in _measure(name, shape, spec, backends, settings, memory):
                    console.print(_line(row), highlight=False)
                    if file is not None:
                        print(json.dumps(row), file=file, flush=True)
    return 0


def _shape(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9][0-9]*)x([1-9][0-9]*)", text)
    if found is None:
        raise UsageError(f"--shapes {text!r}: a shape is OUTxIN, as 2560x960.")
    return int(found[1]), int(found[2])


def _measure(
    name: str, shape: tuple[int, int], spec: Curve, backends: Sequence[BackendChoice],
    settings: Settings, memory: float,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    device, dtype = settings.device, DTYPES[settings.device]
    generator = torch.Generator().manual_seed(0)
    compressed = _random(spec, shape, generator)
    weight = decode(compressed).to(device)
    dense = weight.to(dtype)
    dense_copies = [dense.clone() for _ in range(_n_copies(dense.nbytes, device))]
    made = {str(choice): _copies(choice, compressed, settings, dense.nbytes) for choice in backends}
    peers = _peers(shape, spec, settings)
    coded_bytes = compressed.stored_bits // 8
    for n in settings.rows or ROWS[device]:
        x = torch.randn(n, shape[1], generator=generator).to(device, dtype)
        dense_ms, dense_eager_ms = _times_ms(
            [lambda w=w, x=x: functional.linear(x, w) for w in dense_copies], device
        )
        for asked, copies in (made | peers).items():
            if asked in made:
                _check(copies[0], x, weight)
            ms, eager_ms = _times_ms([lambda b=b, x=x: b.linear(x, None) for b in copies], device)
            yield {
                "device": device_name(device), "shape": name, "out_features": shape[0],
                "in_features": shape[1], "spec": str(spec), "rows": n, "backend": copies[0].name,
                "asked": asked, "threads": settings.threads, "ms": ms, "dense_ms": dense_ms,
                "eager_ms": eager_ms,
                "dense_eager_ms": dense_eager_ms, "dense_type": str(dtype).removeprefix("torch."),
                "speed_up": dense_ms / ms, "coded_gb_per_s": coded_bytes / 1e6 / ms,
                "memory_gb_per_s": memory, "share_of_roofline": coded_bytes / 1e6 / ms / memory,
            }  # fmt: skip


def _random(spec: Curve, shape: tuple[int, int], generator: torch.Generator) -> CompressedTensor:
    """A matrix of that code by drawing its streams, at no time where encoding takes minutes."""
    parts = {
        name: (torch.rand(part.shape, generator=generator) + 0.5).to(part.dtype)
        if part.dtype.is_floating_point
        else torch.randint(-(2**15), 2**15, part.shape, generator=generator).to(part.dtype)
        for name, part in spec.layout(shape).items()
    }
    parts["scale"] = (parts["scale"] & 15) + 112  # within two octaves
    return CompressedTensor(spec, shape, parts)


def _peers(shape: tuple[int, int], spec: Curve, settings: Settings) -> dict[str, list[OnnxPeer]]:
    if settings.device != "cpu" or not isinstance(spec, Curve):
        return {}
    found: dict[str, list[OnnxPeer]] = {}
    for bits in PEERS.get(spec.bits, ()):
        n = _n_copies(bytes_of(shape, bits), settings.device)
        copies = [OnnxPeer(shape, bits, settings.threads) for _ in range(n)]
        found[copies[0].name] = copies
    return found


def _n_copies(n_bytes: int, device: str) -> int:
    return -(-CACHE_BYTES[device] // n_bytes)


def _copies(
    choice: BackendChoice, compressed: CompressedTensor, settings: Settings, dense_bytes: int
) -> list[Backend]:
    """As many as its weights need: `auto` may turn out to be `decoded`."""

    def make() -> Backend:
        parts = {
            name: part.to(settings.device, copy=True) for name, part in compressed.parts.items()
        }
        return make_backend(choice, CompressedTensor(compressed.spec, compressed.shape, parts))

    first = make()
    n_bytes = dense_bytes if first.name == DECODED.name else compressed.stored_bits // 8
    return [first, *(make() for _ in range(_n_copies(n_bytes, settings.device) - 1))]


def _check(backend: Backend, x: Tensor, weight: Tensor) -> None:
    expected = x.double() @ weight.double().t()
    missing = backend.linear(x, None).double() - expected
    error = float(missing.norm() / expected.norm())
    if not error <= TOLERANCE[x.dtype]:  # nor if it is NaN
        raise NumericsError(f"--backend {backend.name} is wrong: relative error {error:.1e}.")


def _times_ms(calls: list[Callable[[], Any]], device: str) -> tuple[float, float]:
    """Of a call, each with another copy than the one before: by the device, and from Python."""
    eager = statistics.median(times_ms(calls, device, MIN_SECONDS[device], MIN_CALLS))
    return (graph_ms(calls) if device == "cuda" else eager), eager


HEADER = (
    f"{'matrix':<38}{'code':<26}{'rows':>5} {'backend':<11}{'ms':>8}{'eager':>8}{'dense ms':>9}"
    f"{'eager':>8}{'times as fast':>14}{'% of roofline':>14}"
)


def _line(row: dict[str, Any]) -> str:
    matrix = f"{row['shape']} {row['out_features']}x{row['in_features']}"
    return (
        f"{matrix:<38}{row['spec']:<26}{row['rows']:>5} {row['backend']:<11}{row['ms']:>8.4f}"
        f"{row['eager_ms']:>8.4f}{row['dense_ms']:>9.4f}{row['dense_eager_ms']:>8.4f}"
        f"{row['speed_up']:>14.2f}{100 * row['share_of_roofline']:>14.0f}"
    )


if __name__ == "__main__":
    run_command(Settings, main, "benchmarks/bench_kernels.py")
