"""What an evaluation is asked to do; every request that cannot work is refused here."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from einsort_vla.checkpoint import DenseFolder
from einsort_vla.cli.options import BackendOption, CalibrateOption
from einsort_vla.codec import Codec, Leader
from einsort_vla.errors import UsageError
from einsort_vla.families import export_of
from einsort_vla.kernels import check_available
from einsort_vla.lerobot import resolve_folder
from einsort_vla.results import Scene
from einsort_vla.runtime import WHOLE_CHUNK
from envs.libero.benchmark import load_initial_states, load_task, n_tasks
from envs.libero.environment import ACTION_DIM, STATE_DIM
from envs.libero.observation import PICTURE_KEYS, STATE_KEY
from envs.libero.protocol import DEFAULT, Protocol, load_protocol
from eval.closed_loop.recording import import_rerun
from eval.run.arms import check_arms
from eval.run.provenance import ROOT
from eval.run.settings import ArmSettings

MAX_DISPLACEMENT_M = 0.1  # farther, objects leave the table or stand in each other
MAX_DELAY_MS = 5000.0
REFERENCE_POLICY = "policies/checkpoints/reference-libero"


@dataclass(frozen=True)
class Settings(ArmSettings):
    """`--rate R` removes the share R of the bytes of the policy's linear weights (everything that
    the code stores is counted) and runs the result beside the uncompressed policy; several rates,
    codes and delays give a curve, every arm on the same scenes with the same noise."""

    calibrate: CalibrateOption = None
    policy: str = REFERENCE_POLICY
    """Folder or hub id of a dense LeRobot policy."""
    suite: str = "libero_object"
    """One suite that the installed benchmark offers, or several separated by commas."""
    tasks: str = "all"
    """Task numbers separated by commas, or all."""
    episodes: int = 1
    """Episodes per task and arm, each from a stored initial state of its own."""
    first_state: int = 0
    """Number of the first stored initial state: LIBERO stores 50 a task."""
    latency: str = "0"
    """Milliseconds that the policy is made to take while the world moves on, or a receipt of
    `einsort-vla bench`, whose median chunk is taken; several separated by commas."""
    protocol: str = DEFAULT
    """What an episode is: einsort, lerobot, openpi, or a YAML file with the same keys."""
    margin: float = 0.02
    """Loss of success rate up to which a compressed policy counts as not inferior."""
    stop_early: bool = False
    """End an arm as soon as an always-valid bound decides whether it is inferior by the margin;
    scenes are then run state by state, over all tasks."""
    workers: int = field(default_factory=lambda: min(2, os.cpu_count() or 1))
    """Worker processes, one simulator each; policies run in a process of their own."""
    ray: Annotated[str | None, tyro.conf.arg(metavar="ADDRESS")] = None
    """Run the workers on a Ray cluster, at its address, or `auto`."""
    batch: int = 1
    """Looks that the policy answers in one pass; larger pays on a GPU with many workers."""
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
    record: bool = False
    """Write a rerun recording of every episode: pictures, state and actions at each look."""
    track: Literal["trackio", "wandb"] | None = None
    """Send the running success rates and the report there."""
    displace: Annotated[float, tyro.conf.arg(metavar="METRES")] = 0.0
    """Move every object at random by up to this far in x and y."""
    wrong_pictures: bool = False
    """Control: show objects where another displacement would have put them."""
    backend: BackendOption = "decoded"
    runtime: Literal["torch", "onnx"] = "torch"
    """What runs the compressed policy: PyTorch, or ONNX Runtime, once its whole chunk has been
    exported as one graph."""


@dataclass(frozen=True)
class Request:
    """Settings that were found to be possible, with their lists read."""

    settings: Settings
    delays_ms: tuple[float, ...]
    protocol: Protocol
    scenes: tuple[Scene, ...]  # in the order they are run
    dense: DenseFolder


def check_request(settings: Settings) -> Request:
    """Refuse whatever cannot work, before anything is written.

    Raises:
        EinSortError: one message that names what was asked for, and what would be valid.
    """
    codecs, rates = check_arms(settings)
    check_available(settings.backend)
    _check_numbers(settings)
    if settings.record:
        import_rerun()
    protocol = load_protocol(settings.protocol)
    scenes = _list_scenes(settings)
    dense = find_policy(settings.policy)
    _check_runtime(settings, bool(rates), codecs, dense)
    return Request(settings, read_delays(settings.latency), protocol, tuple(scenes), dense)


def read_delays(text: str) -> tuple[float, ...]:
    """Milliseconds, or receipts of `einsort-vla bench`, separated by commas.

    Raises:
        UsageError: neither, or out of range.
    """
    delays = []
    for part in text.split(","):
        try:
            delay = float(part)
        except ValueError:
            delay = _receipt_ms(Path(part))
        if not 0 <= delay <= MAX_DELAY_MS:
            raise UsageError(f"--latency {part} is outside 0 to {MAX_DELAY_MS:g} ms.")
        delays.append(delay)
    return tuple(dict.fromkeys(delays))


def _receipt_ms(path: Path) -> float:
    try:
        latency = json.loads(path.read_text(encoding="utf-8"))["latency_ms"]
        return float(latency[WHOLE_CHUNK]["p50"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"--latency {path} is neither milliseconds nor a receipt of `einsort-vla bench` "
            f"({type(error).__name__}: {error})."
        ) from None


def _check_numbers(settings: Settings) -> None:
    if min(settings.episodes, settings.workers, settings.batch) < 1:
        raise UsageError("--episodes, --workers and --batch must be at least 1.")
    if min(settings.seed, settings.first_state) < 0:
        raise UsageError("--seed and --first-state must be at least 0.")
    if not 0 < settings.margin < 1:
        raise UsageError(f"--margin {settings.margin} is outside (0, 1); 0.02 is two points.")
    if not 0 <= settings.displace <= MAX_DISPLACEMENT_M:
        raise UsageError(
            f"--displace {settings.displace} is outside [0, {MAX_DISPLACEMENT_M}] metres."
        )
    if settings.ray and (settings.video or settings.record or settings.runtime == "onnx"):
        raise UsageError(
            "--ray runs PyTorch without --video and --record: files stay on their machine."
        )
    if settings.wrong_pictures and not settings.displace:
        raise UsageError("--wrong-pictures needs --displace METRES, such as 0.04.")


def _list_scenes(settings: Settings) -> list[Scene]:
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
    if settings.stop_early:  # a bound over time must see all tasks from the start
        scenes.sort(key=lambda scene: scene.episode)
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


def _check_runtime(
    settings: Settings, has_compressed: bool, codecs: Sequence[Codec], dense: DenseFolder
) -> None:
    """Refuse what ONNX Runtime cannot run."""
    if settings.runtime == "torch":
        return
    if not has_compressed:
        raise UsageError("--runtime onnx runs the compressed policy; --rate 0 makes none.")
    if others := [codec for codec in codecs if codec.form != Leader.form]:
        raise UsageError(f"--runtime onnx runs --codec leader, not {others[0]}.")
    if settings.backend != "decoded":
        raise UsageError("--backend is for --runtime torch; ONNX Runtime decodes by itself.")
    if settings.batch > 1:
        raise UsageError("--batch is for --runtime torch; the exported graph takes one look.")
    export_of(dense.policy_type)


def find_policy(policy: str) -> DenseFolder:
    """A dense policy that LIBERO can run.

    Raises:
        CheckpointError: there is no such policy, or it is compressed already.
        UsageError: it was trained with other cameras.
    """
    is_shipped = policy == REFERENCE_POLICY and not Path(REFERENCE_POLICY).exists()
    folder = ROOT / REFERENCE_POLICY if is_shipped else resolve_folder(policy)
    dense = DenseFolder(folder)
    config = dense.config
    features = config.get("input_features", {})
    cameras = [key for key, feature in features.items() if feature.get("type") == "VISUAL"]
    if other := sorted(set(cameras) - set(PICTURE_KEYS)):
        raise UsageError(
            f"{folder} was trained with the cameras {', '.join(other)}; "
            f"LIBERO has {', '.join(PICTURE_KEYS)}."
        )
    _check_size(folder, "state", features.get(STATE_KEY), STATE_DIM)
    _check_size(folder, "action", config.get("output_features", {}).get("action"), ACTION_DIM)
    return dense


def _check_size(folder: Path, what: str, feature: dict[str, Any] | None, size: int) -> None:
    shape = (feature or {}).get("shape", [size])
    if list(shape) != [size]:
        raise UsageError(
            f"{folder} was trained with {what}s of {shape} numbers; LIBERO's have {size}."
        )
