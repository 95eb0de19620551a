"""The backend `cuda` with tensors of the CPU, over the emulated driver; test_cuda.py runs this in a
process of its own, which finds that driver.
"""

import contextlib
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from einsort_vla.codec import Curve, decode, encode
from einsort_vla.errors import EinSortError, ShapeError
from einsort_vla.kernels.cuda import backend, build

TOLERANCE = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 1e-2}  # biases are rounded
BITS = 2.125  # test_cuda.py builds the driver with its kernels
backend.LIBRARY.impl("matmul_curve_cuda", backend.matmul_curve, "CPU")
backend.LIBRARY.impl("decode_curve_cuda", backend.decode_curve, "CPU")


@pytest.fixture(autouse=True)
def cpu_as_gpu(monkeypatch):
    monkeypatch.setattr(build, "cubins", lambda *_: {87: b"cubin 87"})
    monkeypatch.setattr(backend, "_capabilities", lambda: [(8, 7)])
    monkeypatch.setattr(backend, "check_input", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_device", lambda: torch.zeros(0).get_device())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=0))


def coded(**options):
    generator = torch.Generator().manual_seed(0)
    return encode(torch.randn(64, 40, generator=generator), Curve(BITS, **options)), generator


def made_of(compressed, **options):
    return backend.CudaBackend(compressed, backend.CudaOptions(**options))


def error(found, expected):
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("options", [{}, {"rotated": True}, {"window": 16}], ids=str)
def test_few_and_many_rows_in_any_batch(options):
    compressed, generator = coded(**options)
    weight, made = decode(compressed).double(), made_of(compressed)
    torch.testing.assert_close(backend.decode(compressed).double(), weight, rtol=0, atol=1e-6)
    for n in (0, 1, 17, backend.DECODE_FROM):
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
    compressed, _ = coded()
    made, x = made_of(compressed), torch.ones(3, 40)
    products = []
    monkeypatch.setattr(torch, "mm", lambda *own: products.append(own) or own[0].mm(own[1]))
    within = made.linear(x, None)
    assert not products
    torch.testing.assert_close(made_of(compressed, decode_from=3).linear(x, None), within)
    assert [weight.shape for _, weight in products] == [(40, 64)]


def test_the_ops_are_what_they_say():
    compressed, generator = coded()
    own, spec = backend._arguments(compressed, torch.device("cpu")), compressed.spec
    x, window = torch.randn(3, 40, generator=generator), (spec.eighths, spec.window)
    torch.library.opcheck(torch.ops.einsort.matmul_curve_cuda.default, (x, *own, *window, 257))
    torch.library.opcheck(torch.ops.einsort.decode_curve_cuda.default, (*own, 40, *window))
    words, scale, unit = own
    with pytest.raises(ShapeError, match=r"it has 359 words and must have 360"):
        backend.matrix_of(words[1:], scale, unit, 40, *window)
    with pytest.raises(ShapeError, match=r"eighths=17 window=11; there are codes of 8 to 40"):
        backend.matrix_of(words, scale, unit, 40, 17, 11)
    with pytest.raises(ShapeError, match=r"unit=nan; it must be a number"):
        backend.matrix_of(words, scale, float("nan"), 40, *window)
    shifted = torch.cat([words[:1], words])[1:]
    with pytest.raises(EinSortError, match=r"words of a matrix must begin at a multiple of 8"):
        backend.matmul_curve(x, shifted, scale, unit, *window, 257)
    parts = dict(compressed.parts, words=shifted)
    of_shifted = type(compressed)(spec, compressed.shape, parts)
    assert torch.equal(made_of(of_shifted).linear(x, None), made_of(compressed).linear(x, None))


def test_only_who_must_see_the_op_goes_through_the_dispatcher():
    x = torch.ones(2)
    assert not backend._is_watched(x)
    assert backend._is_watched(x.clone().requires_grad_())
    assert backend._is_watched(torch.nn.Parameter(x, requires_grad=False))
    with FlopCounterMode(display=False):
        assert backend._is_watched(x)
