"""Which backend a layer gets, and what is said where it is not the one that was hoped for."""

import logging
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from einsort_vla.codec import Leader, Scalar, decode, encode
from einsort_vla.errors import MissingDependency, UsageError
from einsort_vla.kernels import (
    BACKENDS,
    backends,
    check_available,
    check_backend,
    device_of,
    make_backend,
)
from einsort_vla.layers import CompressedLinear, count_backends


@pytest.fixture(autouse=True)
def no_reason_given_yet():
    backends._fall_back.cache_clear()


def layers(backend):
    weight = torch.randn(24, 16, generator=torch.Generator().manual_seed(0))
    specs = (Leader(2, 2, 6), Leader(2, 3, 5), Scalar(bits=4))
    return nn.Sequential(*(CompressedLinear(encode(weight, s), None, backend) for s in specs))


def unavailable(_):
    raise MissingDependency("--backend cpu needs a C++ compiler.")


def test_auto_takes_compiled_code_and_counts_what_it_took(caplog):
    model = layers("auto")
    assert count_backends(model) == {"cpu": 2, "dense": 1}
    assert [record.message for record in caplog.records] == [
        "--backend auto: scalar weights go to dense: only leader has compiled code"
    ]
    assert count_backends(layers("cpu")) == {"cpu": 2, "reference": 1}
    assert count_backends(nn.Linear(2, 2)) == {}


def test_auto_falls_back_and_says_why_once(monkeypatch, caplog):
    monkeypatch.setitem(BACKENDS, "cpu", unavailable)
    model = layers("auto")
    assert count_backends(model) == {"dense": 3}
    x, layer = torch.randn(3, 16), model[0]
    torch.testing.assert_close(layer(x), x @ decode(layer.compressed).t())
    reasons = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert sum("needs a C++ compiler" in reason for reason in reasons) == 1


def test_a_backend_that_is_named_is_never_replaced(monkeypatch):
    monkeypatch.setitem(BACKENDS, "cpu", unavailable)
    with pytest.raises(MissingDependency, match=r"needs a C\+\+ compiler"):
        layers("cpu")


def test_every_backend_has_its_name_or_a_reason():
    compressed = encode(torch.randn(8, 8), Leader(2, 2, 6))
    for name in BACKENDS:
        assert check_backend(name) == name
        try:
            found = make_backend(name, compressed).name
        except MissingDependency as error:
            assert f"--backend {name}" in str(error)  # noqa: PT017  one or the other
        else:
            assert found == name or name == "auto"
    with pytest.raises(UsageError, match="Did you mean 'triton'"):
        check_backend("trito")


@pytest.mark.parametrize("available", [("cuda", "triton"), ("triton",), ()])
def test_auto_on_a_gpu_prefers_cuda_then_triton(available, monkeypatch):
    """The order; the parts only say that they are on a GPU."""
    compressed = encode(torch.randn(8, 8), Leader(2, 2, 6))

    class OnGpu(torch.Tensor):
        is_cuda = True

    parts = {name: part.as_subclass(OnGpu) for name, part in compressed.parts.items()}
    for name in ("cuda", "triton"):
        stand_in = SimpleNamespace(name=name)
        made = (lambda _, stand_in=stand_in: stand_in) if name in available else unavailable
        monkeypatch.setitem(BACKENDS, name, made)
    found = make_backend("auto", type(compressed)(compressed.spec, compressed.shape, parts))
    assert found.name == [*available, "dense"][0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("name", ["cuda", "triton"])
def test_backends_that_cannot_run_here_are_refused_beforehand(name):
    with pytest.raises(MissingDependency, match=f"--backend {name}: .*CUDA"):
        check_available(name)
    assert device_of(name) == "cuda"
    assert [check_available(other) for other in ("auto", "cpu")] == ["auto", "cpu"]
    assert device_of("auto") == "cpu"
