"""What an evaluation is asked to do; every request that cannot work is refused here."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from einsort_vla.checkpoint import DenseFolder
from einsort_vla.cli.calibration import CalibrateOption
from einsort_vla.cli.options import BackendOption, CodecOption
from einsort_vla.codec import Leader, check_codec
from einsort_vla.errors import UsageError
from einsort_vla.export import family_of
from einsort_vla.kernels import check_available
from einsort_vla.lerobot import resolve_folder
from einsort_vla.plan import check_rate
from envs.benchmark import load_initial_states, load_task, n_tasks
from envs.observation import PICTURE_KEYS
from eval.provenance import ROOT
from eval.rollout import Scene

MAX_DISPLACEMENT_M = 0.1  # farther, objects leave the table or stand in each other
REFERENCE_POLICY = "policies/checkpoints/reference-libero"


@dataclass(frozen=True)
class Settings:
    """`--rate R` removes the share R of the bytes of the policy's linear weights (everything that
    the code stores is counted) and runs the result beside the uncompressed policy."""

    rate: float
    """Share of linear-weight bytes to remove, 0 to 0.95; 0 runs the dense policy alone."""
    codec: CodecOption = "leader"
    calibrate: CalibrateOption = None
    policy: str = REFERENCE_POLICY
    """Folder or hub id of a dense LeRobot policy."""
    suite: str = "libero_object"
    """One suite, or several separated by commas."""
    tasks: str = "all"
    """Task numbers separated by commas, or all."""
    episodes: int = 1
    """Episodes per task and arm, each from a stored initial state of its own."""
    first_state: int = 0
    """Number of the first stored initial state: LIBERO stores 50 a task."""
    workers: int = field(default_factory=lambda: min(2, os.cpu_count() or 1))
    """Worker processes; each needs one core and 2.5 GB."""
    seed: int = 0
    """Seed of the flow's noise and of displaced scenes."""
    output: Path | None = None
    """Folder for the results; default: outputs/libero-<time>."""
    baseline: Path | None = None
    """Folder of an earlier run with this policy on this machine: its dense episodes of the same
    scenes are taken over instead of run again."""
    resume: bool = False
    """Go on with the run in --output; finished episodes are kept."""
    video: bool = False
    """Write side-by-side MP4s of all episodes."""
    displace: Annotated[float, tyro.conf.arg(metavar="METRES")] = 0.0
    """Move every object at random by up to this far in x and y."""
    wrong_pictures: bool = False
    """Control: show objects where another displacement would have put them."""
    backend: BackendOption = "dense"
    runtime: Literal["torch", "onnx"] = "torch"
    """What runs the compressed policy: PyTorch, or ONNX Runtime, once its whole chunk has been
    exported as one graph; a worker then needs 4.5 GB."""


def list_scenes(settings: Settings) -> list[Scene]:
    """All scenes, in the order they are run.

    Raises:
        UsageError: a rate, codec, suite, task, count or combination that does not exist.
    """
    check_rate(settings.rate)
    check_codec(settings.codec)
    check_available(settings.backend)
    if min(settings.episodes, settings.workers) < 1 or min(settings.seed, settings.first_state) < 0:
        raise UsageError(
            "--episodes and --workers must be at least 1, --seed and --first-state at least 0."
        )
    if not 0 <= settings.displace <= MAX_DISPLACEMENT_M:
        raise UsageError(
            f"--displace {settings.displace} is outside [0, {MAX_DISPLACEMENT_M}] metres."
        )
    if settings.wrong_pictures and not settings.displace:
        raise UsageError("--wrong-pictures needs --displace METRES, such as 0.04.")
    scenes = []
    for suite in settings.suite.split(","):
        for task_id in task_ids(settings.tasks, suite):
            load_task(suite, task_id)
            n_states = len(load_initial_states(suite, task_id))
            states = range(settings.first_state, settings.first_state + settings.episodes)
            if states.stop > n_states:
                raise UsageError(
                    f"{suite} stores {n_states} initial states a task, numbered from 0; "
                    f"--first-state and --episodes ask for {states.start} to {states.stop - 1}."
                )
            scenes += [
                Scene(suite, task_id, k, settings.seed, settings.displace, settings.wrong_pictures)
                for k in states
            ]
    return scenes


def task_ids(tasks: str, suite: str) -> list[int]:
    """The numbers that `--tasks` means for a suite.

    Raises:
        UsageError: the text is no list of numbers.
    """
    if tasks == "all":
        return list(range(n_tasks(suite)))
    try:
        return [int(number) for number in tasks.split(",")]
    except ValueError as error:
        raise UsageError(f"--tasks {tasks!r} is not a list of numbers such as 0,3,7.") from error


def check_runtime(settings: Settings, folder: Path) -> None:
    """Refuse what ONNX Runtime cannot run.

    Raises:
        UsageError: there is no compressed policy, its code or its family is not exported, or a
            backend is asked for, too.
    """
    if settings.runtime == "torch":
        return
    if not settings.rate:
        raise UsageError("--runtime onnx runs the compressed policy; --rate 0 makes none.")
    if settings.codec.split()[0] != Leader.form:
        raise UsageError(f"--runtime onnx runs --codec leader, not {settings.codec!r}.")
    if settings.backend != "dense":
        raise UsageError("--backend is for --runtime torch; ONNX Runtime decodes by itself.")
    family_of(str(DenseFolder(folder).config["type"]))


def find_policy(policy: str) -> Path:
    """The folder of a dense policy that LIBERO can run.

    Raises:
        CheckpointError: there is no such policy, or it is compressed already.
        UsageError: it was trained with other cameras.
    """
    is_shipped = policy == REFERENCE_POLICY and not Path(REFERENCE_POLICY).exists()
    folder = ROOT / REFERENCE_POLICY if is_shipped else resolve_folder(policy)
    features = DenseFolder(folder).config.get("input_features", {})
    cameras = [key for key, feature in features.items() if feature.get("type") == "VISUAL"]
    if other := sorted(set(cameras) - set(PICTURE_KEYS)):
        raise UsageError(
            f"{folder} was trained with the cameras {', '.join(other)}; "
            f"LIBERO has {', '.join(PICTURE_KEYS)}."
        )
    return folder
