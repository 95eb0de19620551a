"""Closed-loop LIBERO evaluation of a policy, dense and compressed, on the same initial states."""

import sys
from pathlib import Path

if not __package__:  # run as a script: the root, not eval/, else `import libero` finds this file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import json
import os
import time
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import tyro
from rich.console import Console

from einsort_vla.checkpoint import CompressionSummary, compress_folder, summarize
from einsort_vla.cli.run import run_command
from einsort_vla.codec import menu
from einsort_vla.errors import CheckpointError, UsageError
from einsort_vla.plan import check_rate
from envs.benchmark import load_initial_states, load_task, n_tasks
from envs.protocol import load_protocol
from eval.progress import EpisodeProgress
from eval.provenance import describe
from eval.report import COMPRESSED, DENSE, build_report, print_summary
from eval.rollout import Scene
from eval.schedule import Arm, read_log, run_all
from policies.lerobot_adapter import resolve_folder

ROOT = Path(__file__).resolve().parents[1]
REFERENCE_POLICY = "policies/checkpoints/reference-libero"
LOG, REPORT, RUN = "episodes.jsonl", "report.json", "run.json"


@dataclass(frozen=True)
class Settings:
    """`--rate R` removes the share R of the bytes of the policy's linear weights (everything that
    the code stores is counted) and runs the result beside the uncompressed policy."""

    rate: float
    """Share of linear-weight bytes to remove, 0 to 0.95; 0 runs the dense policy alone."""
    codec: str = "leader"
    """Form of the code: leader or scalar."""
    policy: str = REFERENCE_POLICY
    """Folder or hub id of a dense LeRobot policy."""
    suite: str = "libero_object"
    """One suite, or several separated by commas."""
    tasks: str = "all"
    """Task numbers separated by commas, or all."""
    episodes: int = 1
    """Episodes per task and arm: the first stored initial states."""
    workers: int = field(default_factory=lambda: min(2, os.cpu_count() or 1))
    """Worker processes; each needs one core and 2.5 GB."""
    seed: int = 0
    """Seed of the flow's noise and of displaced scenes."""
    output: Path | None = None
    """Folder for the results; default: outputs/libero-<time>."""
    resume: bool = False
    """Go on with the run in --output; finished episodes are kept."""
    video: bool = False
    """Write side-by-side MP4s of all episodes."""
    displace: Annotated[float, tyro.conf.arg(metavar="METRES")] = 0.0
    """Move every object at random by up to this far in x and y."""
    wrong_pictures: bool = False
    """Control: show objects where another displacement would have put them."""
    backend: str = "dense"
    """How coded weights are multiplied: dense (decoded at load) or reference."""


def main(settings: Settings, console: Console) -> int:
    """Run the evaluation; 0 if every episode ended in success or failure."""
    scenes = _scenes(settings)
    folder = resolve_folder(settings.policy)
    output = _prepare_output(settings)
    arms = [Arm(DENSE, str(folder))]
    compression = None
    if settings.rate:
        compression = _compress(settings, folder, output / COMPRESSED, console)
        arms.append(Arm(COMPRESSED, str(output / COMPRESSED), settings.backend))
    n_total = len(scenes) * len(arms)
    with EpisodeProgress(n_total, read_log(output / LOG), console) as progress:
        videos = output / "videos" if settings.video else None
        run_all(scenes, arms, settings.workers, output / LOG, progress.add, videos)
    names = [arm.name for arm in arms]
    report = build_report(
        progress.records, scenes, names, load_protocol(), settings.rate, compression
    )
    (output / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print_summary(report, console)
    console.print(f"Report: {output / REPORT}", highlight=False, soft_wrap=True)
    return 0 if report["complete"] else 1


def _scenes(settings: Settings) -> list[Scene]:
    """All scenes to run; every bad request is refused here, before anything is written."""
    check_rate(settings.rate)
    menu(settings.codec)
    if settings.episodes < 1 or settings.workers < 1:
        raise UsageError("--episodes and --workers must be at least 1.")
    if settings.wrong_pictures and not settings.displace:
        raise UsageError("--wrong-pictures needs --displace METRES, such as 0.04.")
    scenes = []
    for suite in settings.suite.split(","):
        for task_id in _task_ids(settings.tasks, suite):
            load_task(suite, task_id)
            n_states = len(load_initial_states(suite, task_id))
            if settings.episodes > n_states:
                raise UsageError(f"{suite} stores {n_states} initial states a task; "
                                 f"--episodes {settings.episodes} asks for more.")  # fmt: skip
            scenes += [
                Scene(suite, task_id, k, settings.seed, settings.displace, settings.wrong_pictures)
                for k in range(settings.episodes)
            ]
    return scenes


def _task_ids(tasks: str, suite: str) -> list[int]:
    if tasks == "all":
        return list(range(n_tasks(suite)))
    try:
        return [int(number) for number in tasks.split(",")]
    except ValueError as error:
        raise UsageError(f"--tasks {tasks!r} is not a list of numbers such as 0,3,7.") from error


def _prepare_output(settings: Settings) -> Path:
    """The output folder with its run.json; a folder of another run is refused."""
    default = ROOT / "outputs" / time.strftime("libero-%Y%m%d-%H%M%S")
    output = settings.output or default
    config = _comparable(settings)
    if (output / RUN).exists():
        earlier = json.loads((output / RUN).read_text(encoding="utf-8"))["config"]
        if not settings.resume:
            raise UsageError(f"{output} holds a run already. Use --resume, or another --output.")
        if changed := sorted(k for k in config if config[k] != earlier.get(k)):
            raise UsageError(
                f"{output} holds another run: {', '.join(f'--{k}' for k in changed)} differ. "
                "Resume with the same settings, or use another --output."
            )
        return output
    if settings.resume:
        raise UsageError(f"there is no run to resume in {output}.")
    if output.exists() and any(output.iterdir()):
        raise UsageError(f"{output} is not empty and holds no run. Use another --output.")
    weights = resolve_folder(settings.policy) / "model.safetensors"
    inputs = {"policy": weights} if weights.is_file() else {}
    output.mkdir(parents=True, exist_ok=True)
    run = describe(config, inputs)
    (output / RUN).write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
    return output


def _comparable(settings: Settings) -> dict[str, Any]:
    """The settings that decide results; workers, video and where they go do not."""
    free = ("output", "resume", "workers", "video")
    return {key: value for key, value in asdict(settings).items() if key not in free}


def _compress(
    settings: Settings, source: Path, destination: Path, console: Console
) -> CompressionSummary:
    if not destination.exists():
        with console.status(f"Compressing {source} to rate {settings.rate}"):
            return compress_folder(source, destination, settings.rate, settings.codec)
    weights = [folder / "model.safetensors" for folder in (source, destination)]
    plan = summarize(destination).plan
    if plan.rate_requested != settings.rate or plan.form != settings.codec:
        raise CheckpointError(f"{destination} holds another code than this run asks for.")
    return CompressionSummary(plan, *(path.stat().st_size for path in weights))


if __name__ == "__main__":
    run_command(Settings, main, "eval/libero.py")
