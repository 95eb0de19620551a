"""Coded layers give the decoded product, and loading is strict."""

import pytest
import torch
from torch import nn

from einsort_vla.checkpoint import Checkpoint
from einsort_vla.codec import Codec, Curve, Lossless, decode, encode
from einsort_vla.errors import CheckpointError, ShapeError, UsageError
from einsort_vla.kernels import BackendChoice
from einsort_vla.layers import CompressedLinear, load_, without_weights
from einsort_vla.plan import Plan

SPEC = Curve(2.0)


def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(24, 17), nn.GELU(), nn.Linear(17, 5, bias=False), nn.LayerNorm(5)
    )


def checkpoint(dense_model, spec=SPEC):
    state = dense_model.state_dict()
    coded = {name: encode(state[name], spec) for name in ("0.weight", "2.weight")}
    return Checkpoint(
        Plan(Codec("curve"), 0.5, {}), coded, {n: t for n, t in state.items() if n not in coded}
    )


@pytest.mark.parametrize("backend", ["reference", "decoded", "factored", "cpu", "auto"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 64, 129])
def test_backends_equal_the_decoded_product(backend, dtype, n):
    weight = torch.randn(31, 24, generator=torch.Generator().manual_seed(0))
    bias = torch.randn(31, generator=torch.Generator().manual_seed(1)).to(dtype)
    compressed = encode(weight, SPEC)
    x = torch.randn(n, 24, generator=torch.Generator().manual_seed(2)).to(dtype)
    y = CompressedLinear(compressed, bias, BackendChoice(backend))(x)
    decoded = decode(compressed).double()
    expected = x.double() @ decoded.t() + bias.double()
    # Weights and the sum are rounded once each, to half a step; the sum itself is float32. The
    # compiled backend rounds inputs to 16 bits, by half a step of the largest of their row.
    size = x.double().abs() @ decoded.abs().t() + bias.double().abs()
    step = x.double().abs().amax(1, keepdim=True) / 32767
    bound = torch.finfo(dtype).eps * size + step / 2 * decoded.abs().sum(1) + 1e-5
    assert y.dtype == dtype
    assert ((y.double() - expected).abs() <= bound).all()


def test_a_model_built_without_weights_is_filled():
    """Types stay those of the model, shared weights stay shared, buffers are real."""
    dense = model()
    dense.register_buffer("table", torch.arange(3.0), persistent=False)
    content = checkpoint(dense)
    with without_weights():
        skeleton = model()
        skeleton.register_buffer("table", torch.arange(3.0), persistent=False)
        skeleton.add_module("again", skeleton[3])
        skeleton.to("cuda:7")  # policies move themselves while they are built
    assert all(p.is_meta for p in skeleton.parameters())
    for name in ("3.weight", "3.bias"):
        content.dense[name] = content.dense[name].bfloat16()
    loaded = load_(skeleton, content)
    x = torch.randn(3, 24)
    torch.testing.assert_close(loaded[:4](x), load_(dense, content)(x))
    assert loaded[3].weight.dtype == loaded[0].weight.dtype == torch.float32
    assert loaded.again.weight.data_ptr() == loaded[3].weight.data_ptr()
    assert loaded.table.tolist() == [0, 1, 2]


def test_a_loaded_model_computes_with_the_decoded_weights():
    dense = model()
    content = checkpoint(dense)
    expected = model()
    expected.load_state_dict(
        {**dense.state_dict(), **{name: decode(c) for name, c in content.coded.items()}}
    )
    with torch.no_grad():
        for parameter in (fresh := model()).parameters():
            parameter.zero_()
    loaded = load_(fresh, content)
    x = torch.randn(3, 24)
    torch.testing.assert_close(loaded(x), expected(x))
    assert isinstance(loaded[0], CompressedLinear)


def test_weight_tells_its_kind_without_values():
    layer = CompressedLinear(encode(torch.randn(6, 4), SPEC), None)
    assert layer.weight.shape == (6, 4)
    assert layer.weight.dtype == torch.float32
    assert layer.weight.isnan().all()  # a caller that computes with it must notice
    assert layer.weight.untyped_storage().nbytes() == 4


def test_loading_is_strict():
    content = checkpoint(model())
    lacking = Checkpoint(content.plan, content.coded, {})
    with pytest.raises(CheckpointError, match=r"missing \['0.bias', '3.bias', '3.weight'\]"):
        load_(model(), lacking)
    extra = Checkpoint(content.plan, content.coded, {**content.dense, "x": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"left over \['x'\]"):
        load_(model(), extra)
    other = nn.Sequential(nn.Linear(24, 18), nn.GELU(), nn.Linear(18, 5), nn.LayerNorm(5))
    with pytest.raises(ShapeError, match=r"0 has shape \(18, 24\) in the model and \(17, 24\)"):
        load_(other, content)
    with pytest.raises(CheckpointError, match="2 is GELU, not a linear layer"):
        load_(nn.Sequential(nn.Linear(24, 17), nn.Identity(), nn.GELU()), content)
    with pytest.raises(UsageError, match="unknown backend 'gpu'"):
        load_(model(), content, backend=BackendChoice.parse("gpu"))


@pytest.mark.parametrize("backend", ["decoded", "reference"])
@pytest.mark.parametrize("rows", [1, 2, 15, 16, 17, 64])
def test_lossless_weights_give_the_very_bits_of_the_dense_layer(backend, rows):
    """Closed loops are chaotic: a bias that is added with another rounding changes the actions."""
    generator = torch.Generator().manual_seed(0)
    dense = nn.Linear(96, 64)
    weight = torch.randn(64, 96, generator=generator).bfloat16()
    dense.weight.data = weight.float()
    compressed = encode(weight, Lossless.menu(weight)[0])
    layer = CompressedLinear(compressed, dense.bias.detach(), BackendChoice(backend))
    x = torch.randn(rows, 3, 96, generator=generator)
    assert torch.equal(layer(x), dense(x))
