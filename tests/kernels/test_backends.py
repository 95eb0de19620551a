"""Which backend a layer gets, and what is said where it is not the one that was hoped for."""

import logging
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from torch import nn

from einsort_vla.codec import CodecSpec, CompressedTensor, Curve, Local, Scalar, decode, encode
from einsort_vla.errors import MissingDependency, UsageError
from einsort_vla.kernels import (
    BackendChoice,
    Fallback,
    check_available,
    cpu,
    cuda,
    decode_fast,
    device_of,
    dispatch,
    make_backend,
)
from einsort_vla.kernels.cuda.backend import CudaOptions
from einsort_vla.layers import CompressedLinear, count_backends, count_fallbacks
from einsort_vla.names import BACKENDS

NO_COMPILER = "a C++ compiler is needed"


@pytest.fixture(autouse=True)
def no_reason_given_yet():
    dispatch._log_once.cache_clear()


def layers(text):
    weight = torch.randn(24, 16, generator=torch.Generator().manual_seed(0))
    specs = (Curve(2.0), Curve(2.5), Scalar(bits=4))
    choice = BackendChoice.parse(text)
    return nn.Sequential(*(CompressedLinear(encode(weight, s), None, choice) for s in specs))


def without_compiler(monkeypatch):
    missing = replace(cpu.BACKEND, why_unavailable=lambda: NO_COMPILER)
    monkeypatch.setattr(cpu, "BACKEND", missing)


@pytest.mark.parametrize("asked", ["cpu", "auto", "factored"])
def test_what_a_backend_has_no_code_for_is_decoded_counted_and_told_once(asked, caplog):
    model, n = layers(asked), 0 if asked == "factored" else 2
    assert count_backends(model) == {**({asked.replace("auto", "cpu"): n} if n else {}),
                                     "decoded": 3 - n}  # fmt: skip
    reason = "factored has code for local only" if not n else "cpu has code for curve only"
    fallback = Fallback("scalar", asked, "decoded", reason)
    assert count_fallbacks(model)[fallback] == 1
    assert sum(count_fallbacks(model).values()) == 3 - n
    assert model[2].fallback == fallback
    layers(asked)
    messages = [record.message for record in caplog.records]
    assert messages.count(f"--backend {asked}: scalar weights go to decoded: {reason}") == 1
    assert len(messages) == (1 if n else 2)
    assert count_backends(nn.Linear(2, 2)) == count_fallbacks(nn.Linear(2, 2)) == {}


def test_auto_falls_back_and_says_why_once(monkeypatch, caplog):
    without_compiler(monkeypatch)
    model = layers("auto")
    assert count_backends(model) == {"decoded": 3}
    assert count_fallbacks(model)[
        Fallback("curve", "auto", "decoded", f"cpu: {NO_COMPILER}")
    ] == 2  # fmt: skip
    x, layer = torch.randn(3, 16), model[0]
    torch.testing.assert_close(layer(x), x @ decode(layer.compressed).t())
    reasons = [r.message for r in caplog.records if "--backend auto: curve" in r.message]
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * len(caplog.records)
    assert len(reasons) == 1
    assert NO_COMPILER in reasons[0]


def test_a_backend_that_is_named_is_never_replaced(monkeypatch):
    without_compiler(monkeypatch)
    with pytest.raises(MissingDependency, match=r"--backend cpu: a C\+\+ compiler is needed"):
        layers("cpu")
    with pytest.raises(MissingDependency, match=r"--backend cpu: a C\+\+ compiler is needed"):
        check_available("cpu")


def test_every_backend_has_its_name_or_a_reason():
    weight = torch.randn(8, 8)
    coded = {"curve": encode(weight, Curve(2.0)), "local": encode(weight, Local(operators=2))}
    for name in BACKENDS:
        choice = BackendChoice.parse(name)
        assert str(choice) == name
        try:
            found = make_backend(choice, coded["local" if name == "factored" else "curve"]).name
        except MissingDependency as error:
            assert f"--backend {name}" in str(error)  # noqa: PT017  one or the other
        else:
            assert found == name or name == "auto"


def test_a_choice_is_a_value_read_from_text():
    parse = BackendChoice.parse
    assert parse("cuda decode_from=33") == BackendChoice("cuda", CudaOptions(decode_from=33))
    assert str(parse("cuda  decode_from=33")) == "cuda decode_from=33"
    assert parse("cuda decode_from=257") == parse("cuda") != parse("cuda decode_from=33")
    assert str(parse("cuda decode_from=257")) == "cuda"
    for text, message in (
        ("cud", "unknown backend 'cud'. Did you mean 'cuda'"),
        ("", "unknown backend ''"),
        ("cuda decode=3", "unknown option of --backend cuda 'decode'. Did you mean 'decode_from'"),
        ("cuda decode_from=few", "--backend cuda: 'decode_from=few' must be a whole number"),
        ("cuda decode_from=0", "decode_from=0 must be a number of rows"),
        ("cpu threads=2", "unknown option of --backend cpu 'threads'. Valid: activations"),
        ("cpu activations=int4", "must be one of int16, int8"),
        ("decoded a=1", "unknown option of --backend decoded 'a'. Valid: .it has none."),
    ):
        with pytest.raises(UsageError, match=message):
            parse(text)


@pytest.mark.parametrize("reason", [None, "no CUDA here"])
def test_auto_on_a_gpu_prefers_cuda(reason, monkeypatch):
    """The parts only say that they are on a GPU."""
    compressed = encode(torch.randn(8, 8), Curve(2))

    class OnGpu(torch.Tensor):
        is_cuda = True

    parts = {name: part.as_subclass(OnGpu) for name, part in compressed.parts.items()}
    stand_in = replace(
        cuda.BACKEND,
        makers={"curve": lambda *_: SimpleNamespace(name="cuda")},
        why_unavailable=lambda: reason,
    )
    monkeypatch.setattr(cuda, "BACKEND", stand_in)
    found = make_backend(BackendChoice.parse("auto"), replace(compressed, parts=parts))
    assert found.name == ("decoded" if reason else "cuda")


def test_a_form_that_no_backend_knows_is_decoded_everywhere():
    """What a new form needs is its class: of kernels, nothing."""

    @dataclass(frozen=True)
    class Halves(Scalar):
        form: ClassVar[str] = "halves"

    assert issubclass(Halves, CodecSpec)
    made = encode(torch.randn(8, 8), Scalar(bits=4))
    compressed = CompressedTensor(Halves(bits=4), made.shape, made.parts)
    for name in BACKENDS:
        backend = make_backend(BackendChoice.parse(name), compressed)
        assert backend.name == ("reference" if name == "reference" else "decoded")
        assert torch.equal(backend.linear(torch.eye(8), None), decode(made).t())
    assert torch.equal(decode_fast(compressed), decode(made))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_backend_that_cannot_run_here_is_refused_beforehand():
    with pytest.raises(MissingDependency, match=r"--backend cuda: .*CUDA"):
        check_available("cuda")
    assert device_of("cuda") == "cuda"
    assert [check_available(other).name for other in ("auto", "cpu")] == ["auto", "cpu"]
    assert device_of("auto") == "cpu"
