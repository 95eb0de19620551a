"""Watches a policy act, for `--calibrate`: its layers' inputs, and which layers its actions need.

The dense policy runs in closed loop in fresh random scenes with displaced objects, its failures
and recoveries included; LIBERO's stored initial states, which are the exam, are never used. What it
sees is kept; then its layers' inputs are summed over that, and each layer is coded alone.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: see eval/libero.py
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

from einsort_vla.cli.run import run_command
from einsort_vla.errors import CheckpointError, SimulatorError, UsageError
from einsort_vla.lerobot import (
    load_observations,
    measure_sensitivities,
    save_observations,
    spread,
    watch_inputs,
)
from einsort_vla.plan import InputStatistics
from einsort_vla.results import Scene
from envs.libero.benchmark import load_task
from envs.libero.environment import LiberoEnv
from eval.closed_loop.recorder import Recorder
from eval.closed_loop.request import REFERENCE_POLICY, find_policy, task_ids
from eval.closed_loop.rollout import run_episode
from policies.lerobot_adapter import LeRobotPolicy, load

STATISTICS = "statistics.safetensors"


@dataclass(frozen=True)
class Settings:
    """Collect what a calibrated compression of a dense policy needs, in closed loop."""

    output: Path
    """Folder to write; episodes that are in it already are kept, and the rest is added."""
    policy: str = REFERENCE_POLICY
    """Folder or hub id of a dense LeRobot policy."""
    suite: str = "libero_object"
    """One suite, or several separated by commas."""
    tasks: str = "all"
    """Task numbers separated by commas, or all."""
    episodes: int = 2
    """Episodes per task, each in a random scene of its own."""
    displace: float = 0.04
    """Move every object at random by up to this far in x and y, m."""
    seed: int = 0
    """Of the scenes and of the flow's noise."""
    probes: int = 48
    """Observations on which each layer's effect on the actions is measured; 0 measures none."""


def main(settings: Settings, console: Console) -> int:
    """Run what is missing; observations are on disk after every episode."""
    if settings.episodes < 1 or settings.seed < 0 or settings.probes < 0:
        raise UsageError("--episodes must be at least 1, --seed and --probes at least 0.")
    if (settings.output / STATISTICS).exists():
        raise CheckpointError(f"{settings.output} is complete already; nothing was written over.")
    dense, scenes = find_policy(settings.policy), _scenes(settings)
    names, fingerprint = list(dense.matrices), dense.sha256
    observations_folder = settings.output / f"observations-{fingerprint[:12]}"
    observations_folder.mkdir(parents=True, exist_ok=True)
    policy = load(str(dense.folder))
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        files = _collect(policy, scenes, observations_folder, progress)
        observations = load_observations(files)
        statistics = InputStatistics(fingerprint)
        looks = progress.track(observations, description="layer inputs")
        watch_inputs(policy.loaded, statistics, names, looks)
        if settings.probes:
            task = progress.add_task("layers coded alone", total=len(names))
            probes = spread(observations, settings.probes)
            statistics.sensitivities = measure_sensitivities(
                policy.loaded, probes, statistics, lambda: progress.advance(task)
            )
    statistics.save(settings.output / STATISTICS)
    console.print(
        f"{settings.output / STATISTICS}: inputs of {len(names)} layers at {len(observations)} "
        f"looks of {len(files)} episodes. Use it: "
        f"eval/libero.py --rate 0.875 --calibrate {settings.output / STATISTICS}",
        highlight=False,
        soft_wrap=True,
    )
    return 0


def _scenes(settings: Settings) -> list[Scene]:
    scenes = [
        Scene(suite, task_id, k, settings.seed, settings.displace, stored=False)
        for suite in settings.suite.split(",")
        for task_id in task_ids(settings.tasks, suite)
        for k in range(settings.episodes)
    ]
    for scene in scenes:
        load_task(scene.suite, scene.task_id)  # unknown names are found before the long part
    return scenes


def _collect(
    policy: LeRobotPolicy, scenes: Sequence[Scene], folder: Path, progress: Progress
) -> list[Path]:
    """One file an episode; those that are there are not run again."""
    env: LiberoEnv | None = None
    files = []
    for scene in progress.track(scenes, description="episodes"):
        moved = f"{1000 * scene.displacement_m:.0f}mm"
        name = f"{scene.suite}-{scene.task_id}-{scene.episode}-seed{scene.seed}-{moved}"
        files.append(folder / f"{name}.safetensors")
        if files[-1].exists():
            continue
        if env is None or (env.task.suite, env.task.task_id) != (scene.suite, scene.task_id):
            if env is not None:
                env.close()
            env = LiberoEnv(scene.suite, scene.task_id)
        recorder = Recorder(policy)
        record = run_episode(env, recorder, scene, "dense")
        if record.outcome == "error":
            raise SimulatorError(f"{scene}: {record.error}")
        save_observations(files[-1], recorder.seen)
    if env is not None:
        env.close()
    return files


if __name__ == "__main__":
    run_command(Settings, main, "eval/calibrate.py")
