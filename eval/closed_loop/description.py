"""What run.json says of a closed-loop run."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from einsort_vla.checkpoint import file_sha256
from einsort_vla.results.arms import ArmFacts
from einsort_vla.results.run import CLOSED_LOOP, Design, Run, Scenes, Task
from eval.closed_loop.request import ClosedLoopRequest
from eval.closed_loop.settings import ClosedLoopSettings
from eval.run.provenance import describe

SCRIPT = "eval/libero.py"  # as pages name it


def comparable(settings: ClosedLoopSettings) -> dict[str, Any]:
    """The settings that decide results; who runs it, and what else is written, do not."""
    free = ("output", "resume", "workers", "ray", "video", "record", "baseline", "track")
    return {key: value for key, value in asdict(settings).items() if key not in free}


def describe_run(request: ClosedLoopRequest, arms: Sequence[ArmFacts]) -> Run:
    """What run.json says of a closed-loop run; see docs/evaluation.md.

    Args:
        request: what was asked for.
        arms: what is said of each.
    """
    settings = request.settings
    inputs = {"policy": request.dense.sha256}
    if settings.calibrate and Path(settings.calibrate).is_file():
        inputs["calibrate"] = file_sha256(Path(settings.calibrate))
    run = describe(CLOSED_LOOP, SCRIPT, settings.policy, comparable(settings), inputs)
    design = Design(
        environment=request.benchmark.name,
        protocol=request.protocol.as_dict(),
        scenes=Scenes(
            initial_states="stored",
            displacement_m=settings.displace,
            wrong_pictures=settings.wrong_pictures,
            seed=settings.seed,
        ),
        tasks=_tasks(request),
        arms=tuple(arms),
        margin=settings.margin,
        sequential=settings.stop_early,
    )
    return replace(run, design=design)


def _tasks(request: ClosedLoopRequest) -> tuple[Task, ...]:
    states: dict[tuple[str, int], list[int]] = {}
    for scene in request.scenes:
        states.setdefault((scene.suite, scene.task_id), []).append(scene.episode)
    return tuple(
        Task(
            suite=suite,
            task_id=task_id,
            language=request.benchmark.sentence(suite, task_id),
            max_steps=request.protocol.steps_for(suite),
            states=tuple(numbers),
        )
        for (suite, task_id), numbers in states.items()
    )
