"""What a policy saw is kept as it was, and the layers its actions need are found."""

import contextlib

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from einsort_vla.errors import CheckpointError, UsageError
from einsort_vla.lerobot import (
    action_error,
    load_observations,
    measure_sensitivities,
    replaced,
    save_observations,
)
from einsort_vla.plan import LayerStatistics
from eval.closed_loop.calibration import STATISTICS, Recorder
from eval.closed_loop.calibration import calibrate as main
from eval.closed_loop.settings import CalibrationSettings


class TwoBranches:
    """A policy whose actions follow `strong` a hundred times as much as `weak`."""

    chunk_size, n_action_steps, memory_bytes, last_chunk_ms = 4, 2, None, 1.0

    def __init__(self):
        torch.manual_seed(0)
        branches = {"strong": nn.Linear(16, 8), "weak": nn.Linear(16, 8)}
        self.module = nn.ModuleDict(branches).requires_grad_(False)

    def reset(self, seed):
        self.seed = seed

    def layers(self, weights):
        return {name: self.module[name.removesuffix(".weight")] for name in weights}

    def chunk(self, observation, seed):
        return self.predict_action_chunk(observation)

    def predict_action_chunk(self, observation):
        state = torch.from_numpy(observation["observation.state"])
        actions = self.module["strong"](state) + 0.01 * self.module["weak"](state)
        return actions.view(4, 2).numpy()

    def select_action(self, observation):
        return self.predict_action_chunk(observation)[0]


def observations(n):
    rng = np.random.default_rng(0)
    return [
        {
            "observation.images.image": rng.integers(0, 255, (8, 8, 3), dtype=np.uint8),
            "observation.state": rng.normal(size=16).astype(np.float32),
            "task": "push",
        }
        for _ in range(n)
    ]


def test_a_recorder_acts_alike_and_its_file_holds_what_was_shown(tmp_path):
    policy, seen = TwoBranches(), observations(5)
    recorder = Recorder(policy)
    recorder.reset(3)
    for observation in seen:
        np.testing.assert_array_equal(
            recorder.predict_action_chunk(observation), policy.predict_action_chunk(observation)
        )
    save_observations(tmp_path / "a.safetensors", recorder.seen)
    again = load_observations([tmp_path / "a.safetensors"] * 2)
    assert len(again) == 10
    for found, expected in zip(again, seen * 2, strict=True):
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[key], expected[key]) for key in expected)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_layers_that_move_the_actions_are_the_sensitive_ones():
    policy, seen = TwoBranches(), observations(64)
    statistics = LayerStatistics("")
    names = ["strong.weight", "weak.weight"]
    with statistics.observing(policy.layers(names)):
        for observation in seen:
            policy.predict_action_chunk(observation)
    before = {name: p.clone() for name, p in policy.module.named_parameters()}
    found = measure_sensitivities(policy, seen[:32], statistics)
    assert 1e3 < found["strong.weight"] / found["weak.weight"] < 1e5  # 100 squared is between
    assert all(torch.equal(before[n], p) for n, p in policy.module.named_parameters())


def test_action_errors_are_in_units_of_each_dimension():
    expected = np.random.default_rng(0).normal(size=(50, 4, 2)) * [1, 100]
    moved = expected + 0.1 * expected.reshape(-1, 2).std(0)
    assert action_error(moved, expected) == pytest.approx(0.01)
    assert action_error(expected, expected) == 0


def test_a_replaced_weight_comes_back_after_an_error():
    parameter = nn.Parameter(torch.ones(2))
    with contextlib.suppress(ValueError), replaced({parameter: torch.zeros(2)}):
        assert parameter.sum() == 0
        raise ValueError("inside")
    assert parameter.sum() == 2


def test_misuse(tmp_path):
    with pytest.raises(UsageError, match="at least 1"):
        main(CalibrationSettings(tmp_path / "a", episodes=0), Console(quiet=True))
    (tmp_path / STATISTICS).touch()
    with pytest.raises(CheckpointError, match="complete already"):
        main(CalibrationSettings(tmp_path), Console(quiet=True))


@pytest.mark.sim
def test_one_episode_of_the_reference_policy(tmp_path):
    settings = CalibrationSettings(tmp_path / "c", tasks="1", episodes=1, probes=1)
    assert main(settings, Console(quiet=True)) == 0
    statistics = LayerStatistics.load(tmp_path / "c" / STATISTICS)
    assert statistics.sensitivities.keys() == statistics.n_rows.keys()
    assert len(statistics.sensitivities) > 80
    # Of the last layer of text only keys and values reach the actions.
    unfelt = statistics.n_rows.keys() - statistics.output_moments.keys()
    assert {name.split("layers.3.")[1] for name in unfelt} == {
        "self_attn.q_proj.weight", "self_attn.o_proj.weight", "mlp.gate_proj.weight",
        "mlp.up_proj.weight", "mlp.down_proj.weight",
    }  # fmt: skip
    assert all(statistics.sensitivities[name] == 0 for name in unfelt)
    assert all(value >= 0 for value in statistics.sensitivities.values())
    (tmp_path / "c" / STATISTICS).unlink()
    assert main(settings, Console(quiet=True)) == 0  # its observations are there already
    again = LayerStatistics.load(tmp_path / "c" / STATISTICS)
    assert again.n_rows == statistics.n_rows
