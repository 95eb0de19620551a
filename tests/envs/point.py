"""A made-up environment, without a simulator: a point that must reach a goal.

It has the cameras and sizes of the reference policy, so that the whole command can run on it.
"""

import numpy as np

from einsort_vla.errors import UsageError
from einsort_vla.runtime.observation import STATE_KEY, TASK_KEY
from envs.environment import EpisodeProtocol, Features

FEATURES = Features(
    ("observation.images.image", "observation.images.image2"), state_size=8, action_size=7
)
STEP_M, REACHED_M, N_TASKS, N_STATES = 0.05, 0.03, 2, 5
PROTOCOL = EpisodeProtocol("point", 10, None, "hold", {}, default_max_steps=12)


class PointEnv:
    def __init__(self, suite, task_id, protocol):
        self.protocol, self.features, self.task = protocol, FEATURES, (suite, task_id)
        self.is_closed = False

    def set_scene(self, seed, init_state=None, displacement_m=0.0, picture_seed=None):
        rng = np.random.default_rng(seed if init_state is None else init_state)
        self._place = np.zeros(3)
        self._goal = rng.uniform(0.1, 0.15, 3) * (1 if self.task[1] == 0 else -1)
        self._n_steps = 0

    def observe(self):
        picture = np.full((128, 128, 3), 200, np.uint8)
        state = np.concatenate([self._place, self._goal, np.zeros(2)]).astype(np.float32)
        pictures = dict.fromkeys(FEATURES.pictures, picture)
        return {**pictures, STATE_KEY: state, TASK_KEY: BENCHMARK.sentence(*self.task)}

    def advance(self, action):
        self._place = self._place + STEP_M * np.clip(action[:3], -1, 1)
        self._n_steps += 1
        success = bool(np.linalg.norm(self._goal - self._place) < REACHED_M)
        return success, self._n_steps >= self.protocol.default_max_steps and not success

    def hold_action(self, last):
        return np.zeros(FEATURES.action_size, np.float32)

    def hand_position(self):
        return self._place

    def render(self):
        return self.observe()["observation.images.image"]

    def take_task(self, suite, task_id):
        self.task = suite, task_id
        return not self.is_closed

    def close(self):
        self.is_closed = True


class PointBenchmark:
    name, features, max_displacement_m, packages = "Point", FEATURES, 0.0, ()

    def n_tasks(self, suite):
        if suite != "point_space":
            raise UsageError(f"unknown suite {suite!r}.")
        return N_TASKS

    def sentence(self, suite, task_id):
        if not 0 <= task_id < self.n_tasks(suite):
            raise UsageError(f"{suite} has no task {task_id}.")
        return f"reach goal {task_id}"

    def n_states(self, suite, task_id):
        return N_STATES

    def load_protocol(self, name_or_path=None):
        if name_or_path not in (None, PROTOCOL.name):
            raise UsageError(f"unknown protocol {name_or_path!r}.")
        return PROTOCOL

    def make(self, suite, task_id, protocol):
        return PointEnv(suite, task_id, protocol)


BENCHMARK = PointBenchmark()
