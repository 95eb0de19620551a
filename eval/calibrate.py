"""Watches the inputs of a policy's linear layers while it acts, for `--calibration`.

The dense policy runs in closed loop in fresh random scenes with displaced objects, its failures
and recoveries included; LIBERO's stored initial states, which are the exam, are never used.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: see eval/libero.py
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from dataclasses import dataclass

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

from einsort_vla.checkpoint import WEIGHTS, compressible_shapes, file_sha256
from einsort_vla.cli.run import run_command
from einsort_vla.errors import SimulatorError, UsageError
from einsort_vla.plan import InputStatistics
from envs.benchmark import load_task
from envs.libero import LiberoEnv
from eval.request import REFERENCE_POLICY, find_policy, task_ids
from eval.rollout import Scene, run_episode
from policies.lerobot_adapter import load


@dataclass(frozen=True)
class Settings:
    """Collect the input statistics of a dense policy's linear layers in closed loop."""

    output: Path
    """File to write; if it holds part of the same collection, it is completed."""
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


def main(settings: Settings, console: Console) -> int:
    """Run what is missing; the file is whole after every episode."""
    if settings.episodes < 1 or settings.seed < 0:
        raise UsageError("--episodes must be at least 1, --seed at least 0.")
    folder = find_policy(settings.policy)
    statistics = _begin(settings.output, file_sha256(folder / WEIGHTS))
    scenes = [
        Scene(suite, task_id, k, settings.seed, settings.displace, stored=False)
        for suite in settings.suite.split(",")
        for task_id in task_ids(settings.tasks, suite)
        for k in range(settings.episodes)
    ]
    for scene in scenes:
        load_task(scene.suite, scene.task_id)  # unknown names are found before the long part
    policy = load(str(folder))
    names = list(compressible_shapes(folder))
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    env: LiberoEnv | None = None
    with Progress(*columns, console=console) as progress:
        for scene in progress.track(scenes, description="episodes"):
            if repr(scene) in statistics.episodes:
                continue
            if env is None or (env.task.suite, env.task.task_id) != (scene.suite, scene.task_id):
                if env is not None:
                    env.close()
                env = LiberoEnv(scene.suite, scene.task_id)
            with statistics.observing(policy.module, names):
                record = run_episode(env, policy, scene, "dense")
            if record.outcome == "error":
                raise SimulatorError(f"{scene}: {record.error}")
            statistics.episodes.append(repr(scene))
            statistics.save(settings.output)
    if env is not None:
        env.close()
    console.print(
        f"{settings.output}: inputs of {len(names)} layers in {len(statistics.episodes)} episodes. "
        f"Use it: eval/libero.py --rate 0.875 --calibration {settings.output}",
        highlight=False,
    )
    return 0


def _begin(output: Path, source_sha256: str) -> InputStatistics:
    if not output.exists():
        output.parent.mkdir(parents=True, exist_ok=True)
        return InputStatistics(source_sha256)
    statistics = InputStatistics.load(output)
    statistics.check_source(source_sha256)
    return statistics


if __name__ == "__main__":
    run_command(Settings, main, "eval/calibrate.py")
