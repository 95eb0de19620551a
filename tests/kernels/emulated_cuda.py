"""The backend `cuda` with tensors of the CPU, over the emulated driver; test_cuda.py runs this in a
process of its own, which finds that driver.
"""

from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from einsort_vla.codec import Leader, decode, encode
from einsort_vla.kernels import gpu
from einsort_vla.kernels.cuda import backend, build

TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}


@pytest.fixture(autouse=True)
def cpu_as_gpu(monkeypatch):
    monkeypatch.setattr(build, "cubins", lambda _: {87: b"cubin 87"})
    monkeypatch.setattr(backend, "_sms", lambda: (87,))
    monkeypatch.setattr(gpu, "check_input", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: torch.zeros(0).get_device())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=0))


def made_of(compressed, **options):
    return backend.CudaBackend(compressed, backend.CudaOptions(**options))


def error(found, expected):
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("spec", [Leader(2, 2, 6), Leader(4, 1, 7, rotated=True)], ids=str)
def test_few_and_many_rows_in_any_batch(spec):
    generator = torch.Generator().manual_seed(0)
    compressed = encode(torch.randn(64, 40, generator=generator), spec)
    weight, made = decode(compressed).double(), made_of(compressed)
    for n in (0, 1, backend.DECODE_FROM - 1, backend.DECODE_FROM):
        for dtype, tolerance in TOLERANCE.items():
            x = torch.randn(n, 40, generator=generator).to(dtype)
            bias = torch.randn(64, generator=generator).to(dtype)
            expected = x.double() @ weight.t() + bias.double()
            found = made.linear(x, bias)
            assert (found.dtype, found.shape) == (dtype, (n, 64))
            assert torch.equal(made.linear(x[None, :, None], bias)[0, :, 0], found)
            for x_as_well in (x, x.t().contiguous().t()) if n else ():
                assert error(made.linear(x_as_well, bias), expected) < tolerance


def test_where_the_matrix_is_decoded_first_can_be_chosen(monkeypatch):
    compressed = encode(
        torch.randn(64, 40, generator=torch.Generator().manual_seed(0)), Leader(2, 2, 6)
    )
    made, x = made_of(compressed), torch.ones(3, 40)
    products = []
    monkeypatch.setattr(torch, "mm", lambda *own: products.append(own) or own[0].mm(own[1]))
    within = made.linear(x, None)
    assert not products
    torch.testing.assert_close(made_of(compressed, decode_from=3).linear(x, None), within)
    assert [weight.shape for _, weight in products] == [(40, 64)]


def test_only_who_must_see_the_op_goes_through_the_dispatcher():
    x = torch.ones(2)
    assert not backend._is_watched(x)
    assert backend._is_watched(x.clone().requires_grad_())
    assert backend._is_watched(torch.nn.Parameter(x, requires_grad=False))
    with FlopCounterMode(display=False):
        assert backend._is_watched(x)
