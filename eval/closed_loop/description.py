"""What run.json says of a closed-loop run; see docs/evaluation.md."""

from collections.abc import Sequence
from dataclasses import replace

from einsort_vla.results import CLOSED_LOOP, ArmFacts, Design, Run, Scenes, Task
from eval.closed_loop.request import ClosedLoopRequest
from eval.run.output import describe_run

SCRIPT = "eval/libero.py"  # as pages name it


def describe_episodes(request: ClosedLoopRequest, arms: Sequence[ArmFacts]) -> Run:
    """What run.json says of the run that was asked for, with what is said of each arm."""
    settings = request.settings
    inputs = {"policy": request.dense.sha256}
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
    run = describe_run(CLOSED_LOOP, SCRIPT, settings.policy, settings, inputs)
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
