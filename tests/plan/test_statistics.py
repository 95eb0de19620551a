"""Streamed sums are the whole sums, and come back from the file."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from einsort_vla.errors import CheckpointError
from einsort_vla.plan import LayerStatistics
from einsort_vla.plan.statistics import FORMAT


def observed(inputs):
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))
    statistics = LayerStatistics("abc")
    with statistics.observing({"0.weight": model[0], "2.weight": model[2]}):
        for part in inputs.split(2):
            model(part)
    model(inputs)  # no longer watched
    return model, statistics


def test_the_hessian_is_the_mean_outer_product_of_all_inputs():
    inputs = torch.randn(5, 7, 6, generator=torch.Generator().manual_seed(0))
    model, statistics = observed(inputs)
    rows = inputs.flatten(0, 1).double()
    hidden = model[1](model[0](inputs)).detach().flatten(0, 1).double()
    for name, x in (("0.weight", rows), ("2.weight", hidden)):
        expected = (x.t() @ x / len(x)).float()
        torch.testing.assert_close(statistics.hessian(name).inputs, expected)
        assert statistics.n_rows[name] == 35


def test_effects_are_the_moments_of_inputs_and_gradients():
    """Layers that no gradient reaches are added as they are."""
    model = nn.ModuleDict({n: nn.Linear(5, 5) for n in ("first", "second", "aside")})
    model.requires_grad_(False)
    statistics, looks = LayerStatistics("abc"), torch.randn(4, 3, 5)
    with statistics.observing_effects({f"{n}.weight": m for n, m in model.items()}):
        for x in looks:
            model["aside"](x)
            hidden = model["first"](x)
            model["second"](hidden.relu_()).square().sum().backward()
    weight, x = model["second"].weight, looks.flatten(0, 1)
    hidden = model["first"](x)
    above = 2 * model["second"](hidden.relu())
    below = (above @ weight) * (hidden > 0)
    expected = {"first": (x, below), "second": (hidden.relu(), above)}
    for name, (inputs, gradients) in expected.items():
        found = statistics.hessian(f"{name}.weight")
        weighted = inputs * gradients.square().mean(1, keepdim=True)
        torch.testing.assert_close(found.inputs, weighted.t() @ inputs / 12)
        torch.testing.assert_close(found.outputs, gradients.t() @ gradients / 12)
    aside = statistics.hessian("aside.weight")
    torch.testing.assert_close(aside.inputs, x.t() @ x / 12)
    assert aside.outputs is None
    assert set(statistics.n_rows.values()) == {12}


def test_a_saved_file_is_the_same_and_can_be_continued(tmp_path):
    _, statistics = observed(torch.randn(4, 3, 6))
    statistics.sensitivities["0.weight"] = 2.5
    statistics.output_moments["0.weight"] = torch.eye(4)
    statistics.save(tmp_path / "c.safetensors")
    again = LayerStatistics.load(tmp_path / "c.safetensors")
    assert again.sensitivities == {"0.weight": 2.5}
    assert torch.equal(again.output_moments["0.weight"], torch.eye(4))
    assert torch.equal(again.hessian("2.weight").inputs, statistics.hessian("2.weight").inputs)
    again.add("2.weight", torch.ones(3, 4))
    assert again.n_rows["2.weight"] == 15


def test_wrong_files_and_layers_are_named(tmp_path):
    _, statistics = observed(torch.randn(4, 3, 6))
    with pytest.raises(CheckpointError, match=r"no inputs of 1\.weight"):
        statistics.hessian("1.weight")
    with pytest.raises(CheckpointError, match=r"other weights.*abc, not xyz\); calibrate again"):
        statistics.check_source("xyz")
    with pytest.raises(CheckpointError, match="does not exist"):
        LayerStatistics.load(tmp_path / "none")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(CheckpointError, match="damaged or truncated"):
        LayerStatistics.load(tmp_path / "text")
    statistics.output_moments["1.weight"] = torch.eye(3)
    statistics.save(tmp_path / "c.safetensors")
    with pytest.raises(CheckpointError, match=r"1\.weight has no sum"):
        LayerStatistics.load(tmp_path / "c.safetensors")


@pytest.mark.parametrize(
    ("moment", "content", "message"),
    [
        (torch.ones(4, 3), {"n_rows": {"a": 1}, "sensitivities": {}}, "not a square matrix"),
        (torch.ones(4, 4).half(), {"n_rows": {"a": 1}, "sensitivities": {}}, "a is F16 of shape"),
        (torch.full((2, 2), torch.nan), {"n_rows": {"a": 1}, "sensitivities": {}}, "a holds NaN"),
        (torch.ones(2, 2), {"n_rows": {"a": 0}, "sensitivities": {}}, "Expected `int` >= 1"),
        (torch.ones(2, 2), {"n_rows": {}, "sensitivities": {}}, "a has no sum or no n_rows"),
        (torch.ones(2, 2), {"n_rows": {"a": 1}, "sensitivities": {"a": -1}}, ">= 0.0"),
        (torch.ones(2, 2), {"n_rows": {"a": 1}}, "missing required field `sensitivities`"),
    ],
)
def test_files_that_hold_no_statistics(tmp_path, moment, content, message):
    metadata = {"format": FORMAT, "source_sha256": "abc", "content": json.dumps(content)}
    save_file({"a": moment}, tmp_path / "c.safetensors", metadata)
    with pytest.raises(CheckpointError, match=message):
        LayerStatistics.load(tmp_path / "c.safetensors")
