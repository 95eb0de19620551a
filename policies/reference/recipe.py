"""The whole recipe: demonstrations, training, takeovers, checkpoint; resumable.

Each stage skips what is already in the work folder, so an interrupted run goes on where it was.
"""

import multiprocessing
import os
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from envs.experts import WITHOUT_EXPERT
from policies.protocol import Policy
from policies.reference.demonstrations import collect_task
from policies.reference.model import Shape
from policies.reference.train import TrainSettings, export, train


@dataclass(frozen=True)
class Recipe:
    """One stage of the recipe; `make reference-policy` runs the two of the shipped policy."""

    work: Path = Path("outputs/reference-policy")
    """Demonstrations and training state; what is there is not made again."""
    output: Path = Path("policies/checkpoints/reference-libero")
    """The LeRobot checkpoint folder to write at the end."""
    start: Path | None = None
    """A checkpoint of the same shape to go on from; random weights without it."""
    start_share: float = 0.0
    """Share of `start` in the weights that are written at the end."""
    suites: tuple[str, ...] = ("libero_object", "libero_spatial")
    demonstrations_per_task: tuple[int, ...] = (20, 20)
    """One number a suite."""
    takeover_after: tuple[float, ...] = (0.35, 0.65)
    """Shares of the schedule after which a round of takeovers is made; 0 needs `start`."""
    takeover_scenes_per_task: tuple[tuple[int, ...], ...] = ((6, 6), (3, 9))
    """Scenes of each round, one number a suite."""
    seed: int = 1
    """Of the demonstrations' scenes; another number gives others."""
    processes: int = field(default_factory=lambda: min(2, os.cpu_count() or 1))
    train: TrainSettings = field(default_factory=TrainSettings)


def make_reference_policy(recipe: Recipe) -> None:
    """Make the reference policy."""
    demos = recipe.work / "demos"
    demos.mkdir(parents=True, exist_ok=True)
    shape = Shape()
    _collect(recipe, demos, recipe.demonstrations_per_task, recipe.seed, checkpoint=None)
    for round_, share in enumerate(recipe.takeover_after):
        until = round(share * recipe.train.steps)
        checkpoint = recipe.work / f"checkpoint_{until}"
        if until == 0 and recipe.start is not None:
            checkpoint = recipe.start
        elif not checkpoint.exists():
            train(recipe.work, shape, recipe.train, until, recipe.processes, recipe.start)
            export(recipe.work, checkpoint, shape)
        scenes = recipe.takeover_scenes_per_task[round_]
        _collect(recipe, demos, scenes, 100 * recipe.seed + round_, checkpoint)
    train(recipe.work, shape, recipe.train, recipe.train.steps, recipe.processes, recipe.start)
    export(recipe.work, recipe.output, shape, recipe.start, recipe.start_share)
    print(f"Wrote {recipe.output}.")


def _collect(
    recipe: Recipe, demos: Path, n_scenes: tuple[int, ...], seed: int, checkpoint: Path | None
) -> None:
    """One round over all tasks, each in a process of its own: GL contexts do not survive fork."""
    jobs = [
        (suite, task_id, demos, n, seed, checkpoint)
        for task_id in range(10)
        for suite, n in zip(recipe.suites, n_scenes, strict=True)
        if n and (suite, task_id) not in WITHOUT_EXPERT
    ]
    started = time.monotonic()
    context = multiprocessing.get_context("spawn")
    with context.Pool(recipe.processes, maxtasksperchild=1) as pool:
        for done, line in enumerate(pool.imap_unordered(_collect_job, jobs), start=1):
            remaining = (time.monotonic() - started) / done * (len(jobs) - done)
            print(f"{line}  ({done}/{len(jobs)}, {remaining / 60:.0f} min left)", flush=True)


def _collect_job(job: tuple[str, int, Path, int, int, Path | None]) -> str:
    suite, task_id, demos, n, seed, checkpoint = job
    load = None if checkpoint is None else partial(_load_single_threaded, checkpoint)
    return collect_task(suite, task_id, demos, n, seed, load)


def _load_single_threaded(checkpoint: Path) -> Policy:
    import torch

    from policies.lerobot_adapter import load

    torch.set_num_threads(1)
    return load(str(checkpoint))
