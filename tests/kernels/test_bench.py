"""What the benchmark of kernels refuses, and how many copies it makes."""

from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from benchmarks import bench_kernels
from benchmarks.bench_kernels import Settings, main
from einsort_vla.codec import Curve, encode
from einsort_vla.errors import NumericsError, UsageError
from einsort_vla.kernels import BackendChoice


@pytest.mark.parametrize(
    "settings",
    [
        {"rows": (4, 0)},
        {"threads": 0},
        *({"shapes": (shape,)} for shape in ("64", "64x", "0x64", "64x64x2", "square")),
    ],
)
def test_what_cannot_be_measured_is_refused(settings):
    with pytest.raises(UsageError, match=f"--{next(iter(settings))}"):
        main(Settings(**settings), Console(quiet=True))


def test_a_result_that_is_no_number_is_wrong():
    broken = SimpleNamespace(name="cpu", linear=lambda x, _: x * float("nan"))
    with pytest.raises(NumericsError, match="--backend cpu is wrong: relative error nan"):
        bench_kernels._check(broken, torch.ones(2, 3), torch.eye(3))


def test_copies_are_as_many_as_their_bytes_need(monkeypatch):
    monkeypatch.setattr(bench_kernels, "CACHE_BYTES", {"cpu": 2**16})
    compressed = encode(torch.randn(64, 64), Curve(2.0))
    n = {
        name: len(bench_kernels._copies(BackendChoice(name), compressed, Settings(), 4 * 64 * 64))
        for name in ("decoded", "reference")
    }
    assert n == {"decoded": 4, "reference": -(-(2**16) // (compressed.stored_bits // 8))}
