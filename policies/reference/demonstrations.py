"""Demonstrations of the scripted expert, one .npz file each, written by worker processes.

Every scene is a fresh random reset, most with all objects displaced; the benchmark's stored initial
states are never touched. The executed action is noisy and the label is the clean one (DART,
Laskey et al. 2017, arXiv:1703.09327), so that the data holds recoveries.
"""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from einsort_vla.atomic import atomic_file
from envs.experts import Expert, make_expert
from envs.libero.benchmark import load_task
from envs.libero.observation import observe
from envs.libero.protocol import load_protocol
from envs.libero.simulator import CAMERAS, Simulator
from policies.protocol import Policy

LOOK_EVERY, LOOK_EVERY_CLOSING = 4, 2  # control steps between recorded pictures
STEPS_AFTER_SUCCESS = 6
TAKE_OVER_FROM, TAKE_OVER_WITHIN = 10, 0.43  # control steps; share of the step budget
MISSED_GAP_M = 0.006  # fingers closed on nothing
LOST_DISTANCE_M = 0.09  # closing this far from the target cannot end well
MISSES_BEFORE_TAKEOVER = 12  # control steps in a row
DISPLACEMENT_M, UNDISPLACED_SHARE = 0.05, 0.15  # of scenes from the task's own placement

# Disturbance of executed actions; labels stay clean.
BURST_PROBABILITY = 0.03  # per step while reaching or carrying
BURST_STEPS, BURST_SIZE = (3, 8), (0.3, 1.0)
POSITION_STD, ROTATION_STD = 0.1, 0.03


class Recorder:
    """Collects one episode: pictures at some steps, state and label at all of them."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._columns: defaultdict[str, list[Any]] = defaultdict(list)

    def record(self, action: np.ndarray, attention: np.ndarray, look: bool) -> None:
        simulator, columns = self._simulator, self._columns
        if look:
            columns["pictures"].append(np.stack([simulator.render(c) for c in CAMERAS]))
            columns["look_steps"].append(len(columns["actions"]))
        columns["states"].append(simulator.proprioception())
        columns["actions"].append(action.astype(np.float32))
        columns["places"].append(attention.ravel().astype(np.float32))

    def save(self, path: Path) -> None:
        """Write atomically: pictures (n_looks, 2, H, W, 3) uint8, the rest per step."""
        stacked: dict[str, Any] = {name: np.stack(values) for name, values in self._columns.items()}
        with atomic_file(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, task=self._simulator.task.language, **stacked)


def random_scene(simulator: Simulator, rng: np.random.Generator) -> None:
    """A fresh scene at rest; never one of the stored initial states."""
    simulator.reset(rng)
    simulator.settle()
    if rng.random() >= UNDISPLACED_SHARE:
        simulator.displace(rng, DISPLACEMENT_M)
    simulator.settle()


def record_expert(simulator: Simulator, recorder: Recorder, rng: np.random.Generator) -> bool:
    """Let the expert act from the present state; True if it succeeded within the step budget."""
    expert = make_expert(simulator)
    disturb = _Disturbance(rng)
    after_success = 0
    for step in range(simulator.protocol.steps_for(simulator.task.suite)):
        action = expert.act()
        every = LOOK_EVERY_CLOSING if expert.phase == "close" else LOOK_EVERY
        recorder.record(action, expert.attention(), look=step % every == 0)
        simulator.step(disturb(action, expert.phase))
        after_success += after_success > 0 or simulator.is_success()
        if after_success > STEPS_AFTER_SUCCESS:
            return True
    return False


def let_policy_act(simulator: Simulator, policy: Policy, rng: np.random.Generator) -> bool:
    """Run a policy until a random step or until it grasps at nothing; True if it succeeded."""
    policy.reset(int(rng.integers(2**31)))
    expert = make_expert(simulator)
    queue: list[np.ndarray] = []
    misses = 0
    budget = simulator.protocol.steps_for(simulator.task.suite)
    for _ in range(int(rng.integers(TAKE_OVER_FROM, int(TAKE_OVER_WITHIN * budget)))):
        if not queue:
            queue = list(policy.predict_action_chunk(observe(simulator))[: policy.n_action_steps])
        action = np.clip(queue.pop(0), -1, 1)
        simulator.step(action)
        if simulator.is_success():
            return True
        misses = misses + 1 if _misses_grasp(simulator, action, expert) else 0
        if misses > MISSES_BEFORE_TAKEOVER:
            return False
    return False


def _misses_grasp(simulator: Simulator, action: np.ndarray, expert: Expert) -> bool:
    """Whether the hand closes on nothing where the expert would open it."""
    opens = expert.act()[6] * simulator.protocol.gripper_open > 0
    closes = action[6] * simulator.protocol.gripper_open < 0
    distance = np.linalg.norm(simulator.hand_position() - expert.attention()[0])
    empty = simulator.finger_gap() < MISSED_GAP_M or distance > LOST_DISTANCE_M
    return bool(opens and closes and empty and not simulator.is_gripped(expert.target))


class _Disturbance:
    def __init__(self, rng: np.random.Generator) -> None:
        self._rng, self._remaining, self._direction = rng, 0, np.zeros(3)

    def __call__(self, action: np.ndarray, phase: str) -> np.ndarray:
        rng, moving = self._rng, phase in ("reach", "carry")
        if not self._remaining and moving and rng.random() < BURST_PROBABILITY:
            self._remaining = int(rng.integers(*BURST_STEPS))
            direction = rng.normal(size=3)
            self._direction = direction * rng.uniform(*BURST_SIZE) / np.linalg.norm(direction)
        disturbed = action.copy()
        if self._remaining:
            self._remaining -= 1
            disturbed[:3] = 0.3 * disturbed[:3] + self._direction
        disturbed[:3] += rng.normal(size=3) * POSITION_STD
        disturbed[3:6] += rng.normal(size=3) * ROTATION_STD
        return np.clip(disturbed, -1, 1)


def collect_task(
    suite: str, task_id: int, folder: Path, n: int, seed: int,
    load_policy: Callable[[], Policy] | None = None,
) -> str:  # fmt: skip
    """Write demonstrations of one task; those already in the folder are kept. Returns a summary.

    Without a policy: `n` successful demonstrations of the expert alone. With one: `n` scenes in
    which the policy starts and the expert takes over and is recorded (takeover, after DAgger, Ross
    et al. 2011); scenes the policy solves by itself give no file.
    """
    kind = "expert" if load_policy is None else "takeover"
    studio: tuple[Simulator, Policy | None] | None = None  # made when a scene is missing
    counts = {"recorded": 0, "solved": 0, "failed": 0}
    wanted, scene = n, 0
    while wanted > 0 and scene < 2 * n + 10:
        path = folder / f"{suite}_{task_id}_{kind}{seed}_{scene:03d}.npz"
        outcome = _finished(path)
        if outcome is None:
            studio = studio or _open_studio(suite, task_id, load_policy)
            rng = np.random.default_rng([seed, task_id, scene])
            outcome = _record_scene(*studio, path, rng)
        counts[outcome] += 1
        wanted -= outcome == "recorded" or load_policy is not None
        scene += 1
    if studio:
        studio[0].close()
    return f"{suite} task {task_id}: " + ", ".join(f"{v} {k}" for k, v in counts.items())


def _open_studio(
    suite: str, task_id: int, load_policy: Callable[[], Policy] | None
) -> tuple[Simulator, Policy | None]:
    simulator = Simulator(load_task(suite, task_id), load_protocol())
    return simulator, load_policy() if load_policy else None


def _finished(path: Path) -> str | None:
    """The outcome of a scene an earlier run has finished, from the file it left."""
    outcomes = {"recorded": path, "failed": path.with_suffix(".failed")}
    outcomes["solved"] = path.with_suffix(".solved")
    return next((name for name, file in outcomes.items() if file.exists()), None)


def _record_scene(
    simulator: Simulator, policy: Policy | None, path: Path, rng: np.random.Generator
) -> str:
    random_scene(simulator, rng)
    if policy is not None and let_policy_act(simulator, policy, rng):
        path.with_suffix(".solved").touch()
        return "solved"
    recorder = Recorder(simulator)
    if record_expert(simulator, recorder, rng):
        recorder.save(path)
        return "recorded"
    path.with_suffix(".failed").touch()
    return "failed"
