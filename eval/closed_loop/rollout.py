"""One closed-loop episode: reset, look, act, judge; with or without a policy that takes time."""

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from einsort_vla.errors import NumericsError
from einsort_vla.results.episode import EpisodeRecord, Outcome, Scene
from einsort_vla.runtime.observation import Observation
from envs.environment import Environment, scene_seed
from eval.closed_loop.motion import MotionRecorder
from policies.protocol import Policy


def noise_seed(scene: Scene) -> int:
    """One number for the scene's draws and the flow's noise, the same for every arm."""
    return scene_seed(scene.seed, scene.task_id, scene.episode)


def scene_options(scene: Scene) -> dict[str, Any]:
    """What `Environment.set_scene` is told beside the seed."""
    options: dict[str, Any] = {"init_state": scene.episode} if scene.stored else {}
    if scene.displacement_m:
        options["displacement_m"] = scene.displacement_m
        if scene.wrong_pictures:
            options["picture_seed"] = noise_seed(scene) + 1
    return options


def delay_steps(delay_ms: float, control_freq_hz: float) -> int:
    """Control steps that pass before an answer that takes so long can be acted on."""
    return math.ceil(round(delay_ms * control_freq_hz / 1000, 9))


@dataclass(frozen=True)
class Watch:
    """What else is told of an episode while it runs."""

    on_look: Callable[[Observation, np.ndarray], None] | None = None
    """Given what the policy sees, and the chunk it answers with."""
    on_frame: Callable[[np.ndarray], None] | None = None
    """Given a rendered frame each time the policy looks."""


NOBODY = Watch()


def run_episode(
    env: Environment,
    policy: Policy,
    scene: Scene,
    arm: str,
    delay_ms: float = 0.0,
    watch: Watch = NOBODY,
) -> EpisodeRecord:
    """Run to success or to the step budget; an exception becomes an `error` record."""
    started, episode = time.monotonic(), _Episode(env, policy, delay_ms, watch)
    outcome: Outcome = "error"
    message = None
    try:
        env.set_scene(noise_seed(scene), **scene_options(scene))
        policy.reset(noise_seed(scene))
        outcome = "success" if episode.run() else "failure"
    except Exception as error:  # neither success nor failure: the run is incomplete
        message = f"{type(error).__name__}: {error}"
    return EpisodeRecord(
        scene, arm, outcome, episode.n_steps, round(time.monotonic() - started, 2),
        tuple(episode.chunk_ms), message, episode.actions.hexdigest(), policy.layers,
        policy.memory_bytes, episode.motion.result() if episode.motion else None,
    )  # fmt: skip


class _Episode:
    """The loop of looking and acting.

    With a delay, the world moves on for that many steps between a look and the first action of its
    answer. Meanwhile the arm holds still, or, by the protocol's `next_action`, it makes the steps
    that the last chunk foresaw beyond those to be executed, as far as they go; the new chunk's
    actions for steps made in this way are passed over.
    """

    def __init__(self, env: Environment, policy: Policy, delay_ms: float, watch: Watch) -> None:
        self._env, self._policy, self._watch = env, policy, watch
        self._protocol = env.protocol
        self._n_delay = delay_steps(delay_ms, self._protocol.control_freq_hz)
        self._n_execute = self._protocol.n_action_steps or policy.n_action_steps
        self._last: np.ndarray | None = None  # action
        self.chunk_ms: list[float] = []
        self.actions = hashlib.sha256()
        self.n_steps = 0
        self.motion: MotionRecorder | None = None

    def run(self) -> bool:
        """True at success, False when the step budget is used up."""
        self.motion = MotionRecorder(
            self._protocol.control_freq_hz, self._env.hand_position(), self._env.features.gripper
        )
        foreseen: list[np.ndarray] = []
        while True:
            chunk = self._look()
            meanwhile = list(foreseen[: self._n_delay])
            n_made = min(len(meanwhile), len(chunk) - 1)
            meanwhile += [self._env.hold_action(self._last)] * (self._n_delay - len(meanwhile))
            execute = chunk[n_made : n_made + self._n_execute]
            for i, action in enumerate([*meanwhile, *execute]):
                success, out_of_steps = self._step(action, is_seam=i == len(meanwhile))
                if success or out_of_steps:
                    return success
            if self._protocol.while_thinking == "next_action":
                foreseen = list(chunk[n_made + self._n_execute :])

    def _look(self) -> np.ndarray:
        observation = self._env.observe()
        if self._watch.on_frame:
            self._watch.on_frame(self._env.render())
        chunk = self._policy.predict_action_chunk(observation)
        _check_finite(chunk, len(self.chunk_ms))
        self.chunk_ms.append(round(self._policy.last_chunk_ms, 2))
        if self._watch.on_look:
            self._watch.on_look(observation, chunk)
        return chunk

    def _step(self, action: np.ndarray, is_seam: bool) -> tuple[bool, bool]:
        self.actions.update(action.tobytes())
        self._last = action
        ends = self._env.advance(action)
        self.n_steps += 1
        assert self.motion is not None
        self.motion.add(action, self._env.hand_position(), is_seam)
        return ends


def _check_finite(chunk: np.ndarray, n_looks: int) -> None:
    """A simulator would take such actions for any others, and the episode for a failure."""
    if n_bad := np.count_nonzero(~np.isfinite(chunk)):
        raise NumericsError(
            f"at look {n_looks} the policy answered with {n_bad} of {chunk.size} numbers NaN or "
            "infinite. Check its weights and the statistics of its actions."
        )
