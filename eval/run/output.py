"""The folder of one run: what it holds, and that no two runs are mixed in it."""

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from einsort_vla.atomic import write_text
from einsort_vla.checkpoint import file_sha256
from einsort_vla.errors import UsageError
from einsort_vla.results import RUN, read_run
from envs.libero.benchmark import load_task
from eval.closed_loop.request import Request, Settings
from eval.run.provenance import ROOT, describe

POLICIES, RECORDINGS = "policies", "recordings"


def prepare(request: Request) -> Path:
    """The output folder of a closed-loop run; see `prepare_folder`."""
    settings = request.settings
    return prepare_folder("libero", settings.output, comparable(settings), settings.resume)


def prepare_folder(
    kind: str,
    output: Path | None,
    config: Mapping[str, Any],
    resume: bool,
) -> Path:
    """The output folder, new or of the run to go on with; a folder of another run is refused.

    Args:
        kind: of the evaluation; where no folder is named, it is outputs/KIND-TIME.
        output: that was named.
        config: the settings that decide results, as run.json will have them.
        resume: whether a run in it is to go on.

    Raises:
        UsageError: it holds something else, or there is nothing to resume.
    """
    output = output or ROOT / "outputs" / time.strftime(f"{kind}-%Y%m%d-%H%M%S")
    if (output / RUN).exists():
        earlier = read_run(output)["config"]
        if not resume:
            raise UsageError(f"{output} holds a run already. Use --resume, or another --output.")
        if changed := sorted(k for k in {*config, *earlier} if config.get(k) != earlier.get(k)):
            names = ", ".join(f"--{key.replace('_', '-')}" for key in changed)
            raise UsageError(
                f"{output} holds another run: {names} differ. "
                "Resume with the same settings, or use another --output."
            )
        return output
    if resume:
        raise UsageError(f"there is no run to resume in {output}.")
    if output.exists() and any(output.iterdir()):
        raise UsageError(f"{output} is not empty and holds no run. Use another --output.")
    output.mkdir(parents=True, exist_ok=True)
    return output


@contextmanager
def alone_in(output: Path) -> Iterator[None]:
    """Keep other processes out of a run folder; the system lets go of it however this one ends.

    Raises:
        UsageError: another process is at work in it.
    """
    folder = os.open(output, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"another process is at work in {output}. Wait for it, stop it, or use another "
                "--output."
            ) from None
        yield
    finally:
        os.close(folder)


def comparable(settings: Settings) -> dict[str, Any]:
    """The settings that decide results; who runs it, and what else is written, do not."""
    free = ("output", "resume", "workers", "ray", "video", "record", "baseline", "track")
    return {key: value for key, value in asdict(settings).items() if key not in free}


def describe_run(request: Request, arms: list[dict[str, Any]]) -> dict[str, Any]:
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
                "language": load_task(suite, task_id).language,
                "max_steps": request.protocol.steps_for(suite),
                "states": numbers,
            }
            for (suite, task_id), numbers in states.items()
        ],
        "arms": arms,
        "margin": settings.margin,
        "sequential": settings.stop_early,
    }  # fmt: skip


def write_run(output: Path, run: dict[str, Any]) -> None:
    """Write run.json, whole or not at all."""
    write_text(output / RUN, json.dumps(run, indent=2) + "\n")
