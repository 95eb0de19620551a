"""The loop of looking and acting on a scripted world, with and without a policy that takes time."""

from types import SimpleNamespace

import numpy as np
import pytest

from einsort_vla.results.episode import Scene
from envs.libero.environment import LiberoEnv
from envs.libero.protocol import load_protocol
from eval.closed_loop.rollout import delay_steps, run_episode

CHUNK, EXECUTED = 8, 4


class World:
    """Ends after a number of steps; remembers what it was told."""

    features, hold_action = LiberoEnv.features, LiberoEnv.hold_action

    def __init__(self, n_steps, success, **changes):
        protocol = load_protocol().as_dict() | changes
        self.protocol = SimpleNamespace(**protocol)
        self._n, self._success = n_steps, success
        self.told = []

    def set_scene(self, seed, **options):
        self.seed, self.options = seed, options

    def hand_position(self):
        return np.zeros(3)

    def observe(self):
        return {"step": len(self.told)}

    def advance(self, action):
        self.told.append(action)
        at_end = len(self.told) == self._n
        return at_end and self._success, at_end and not self._success


class Script:
    """Action k of look n is (n, k, 0, ..., gripper 1)."""

    chunk_size, n_action_steps, layers = CHUNK, EXECUTED, {}
    memory_bytes, last_chunk_ms = None, 1.0

    def reset(self, seed):
        self.seed, self.looks = seed, []

    def predict_action_chunk(self, observation):
        self.looks.append(observation["step"])
        chunk = np.zeros((CHUNK, 7), np.float32)
        chunk[:, 0], chunk[:, 1], chunk[:, -1] = len(self.looks), np.arange(CHUNK), 1
        return chunk


def run(n_steps, delay_ms=0.0, success=True, **changes):
    world, script = World(n_steps, success, **changes), Script()
    record = run_episode(world, script, Scene("s", 1, 2, seed=3), "dense", delay_ms)
    return record, [tuple(action[:2]) for action in world.told], world, script


def test_without_delay_the_policy_looks_after_every_four_actions():
    record, told, world, script = run(10)
    assert told == [(1, 0), (1, 1), (1, 2), (1, 3), (2, 0), (2, 1), (2, 2), (2, 3), (3, 0), (3, 1)]
    assert script.looks == [0, 4, 8]
    assert (record.outcome, record.steps, len(record.latency_ms)) == ("success", 10, 3)
    assert world.options == {"init_state": 2}
    assert world.seed == script.seed  # scenes and noise are repeatable
    assert run(10, success=False)[0].outcome == "failure"
    assert run(10, n_action_steps=2)[3].looks == [0, 2, 4, 6, 8]


def test_an_arm_that_holds_stands_still_while_the_policy_thinks():
    _, told, world, script = run(12, delay_ms=100)
    still = (0, 0)
    assert told == [still, still, (1, 0), (1, 1), (1, 2), (1, 3),
                    still, still, (2, 0), (2, 1), (2, 2), (2, 3)]  # fmt: skip
    assert [action[-1] for action in world.told[:2]] == [world.protocol.gripper_open] * 2
    assert world.told[6][-1] == 1  # the gripper stays as it was told last
    assert script.looks == [0, 6]


def test_an_arm_that_goes_on_takes_what_the_last_chunk_foresaw_and_passes_over_it_in_the_next():
    _, told, *_ = run(14, delay_ms=100, while_thinking="next_action")
    still = (0, 0)
    assert told == [still, still, (1, 0), (1, 1), (1, 2), (1, 3),
                    (1, 4), (1, 5), (2, 2), (2, 3), (2, 4), (2, 5), (2, 6), (2, 7)]  # fmt: skip


@pytest.mark.parametrize(("ms", "steps"), [(0, 0), (1, 1), (50, 1), (50.1, 2), (100, 2)])
def test_a_delay_is_whole_control_steps(ms, steps):
    assert delay_steps(ms, 20) == steps


def test_an_exception_is_an_error_and_no_failure():
    world, script = World(5, True), Script()
    script.predict_action_chunk = lambda observation: 1 / 0
    record = run_episode(world, script, Scene("s", 0, 0, 0), "dense")
    assert (record.outcome, record.steps) == ("error", 0)
    assert record.error.startswith("ZeroDivisionError")
    assert record.motion is None


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_an_answer_that_is_no_number_is_an_error_and_no_failure(number):
    world, script = World(9, False), Script()
    answer = script.predict_action_chunk

    def spoiled(observation):
        chunk = answer(observation)
        chunk[-1, :2] = number if len(script.looks) == 2 else 0
        return chunk

    script.predict_action_chunk = spoiled
    record = run_episode(world, script, Scene("s", 0, 0, 0), "dense")
    assert (record.outcome, record.steps) == ("error", EXECUTED)
    assert "at look 1 the policy answered with 2 of 56 numbers NaN or infinite" in record.error
    assert np.isfinite(world.told).all()
