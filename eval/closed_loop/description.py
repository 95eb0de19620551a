"""What run.json says of a closed-loop run."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from einsort_vla.checkpoint import file_sha256
from eval.closed_loop.request import ClosedLoopRequest
from eval.closed_loop.settings import ClosedLoopSettings
from eval.run.provenance import describe


def comparable(settings: ClosedLoopSettings) -> dict[str, Any]:
    """The settings that decide results; who runs it, and what else is written, do not."""
    free = ("output", "resume", "workers", "ray", "video", "record", "baseline", "track")
    return {key: value for key, value in asdict(settings).items() if key not in free}


def describe_run(request: ClosedLoopRequest, arms: list[dict[str, Any]]) -> dict[str, Any]:
    """The content of run.json; see docs/evaluation.md.

    Args:
        request: what was asked for.
        arms: what is said of each.
    """
    settings = request.settings
    inputs = {"policy": request.dense.sha256}
    if settings.calibrate and Path(settings.calibrate).is_file():
        inputs["calibrate"] = file_sha256(Path(settings.calibrate))
    states: dict[tuple[str, int], list[int]] = {}
    for scene in request.scenes:
        states.setdefault((scene.suite, scene.task_id), []).append(scene.episode)
    return {
        **describe(comparable(settings), inputs),
        "policy": settings.policy,
        "environment": request.benchmark.name,
        "protocol": request.protocol.as_dict(),
        "scenes": {
            "initial_states": "stored",
            "displacement_m": settings.displace,
            "wrong_pictures": settings.wrong_pictures,
            "seed": settings.seed,
        },
        "tasks": [
            {
                "suite": suite,
                "task_id": task_id,
                "language": request.benchmark.sentence(suite, task_id),
                "max_steps": request.protocol.steps_for(suite),
                "states": numbers,
            }
            for (suite, task_id), numbers in states.items()
        ],
        "arms": arms,
        "margin": settings.margin,
        "sequential": settings.stop_early,
    }  # fmt: skip
