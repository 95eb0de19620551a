"""What an evaluation is asked to do; every request that cannot work is refused here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import Struct

from einsort_vla.checkpoint import DenseFolder
from einsort_vla.codec import Codec
from einsort_vla.errors import CheckpointError, UsageError
from einsort_vla.families import export_of, input_features, output_features, pictures_of
from einsort_vla.kernels import check_available
from einsort_vla.lerobot import resolve_folder
from einsort_vla.reading import read_json
from einsort_vla.results.episode import Scene
from einsort_vla.runtime import WHOLE_CHUNK
from einsort_vla.runtime.observation import STATE_KEY
from envs import benchmark_of
from envs.environment import Benchmark, EpisodeProtocol
from eval.closed_loop.recording import import_rerun, import_tracker
from eval.closed_loop.settings import REFERENCE_POLICY, ClosedLoopSettings
from eval.run.copies import check_arms, shown
from eval.run.provenance import ROOT
from eval.run.settings import check_least

MAX_DELAY_MS = 5000.0
MIN_MARGIN = 1e-4  # a hundredth of a point


@dataclass(frozen=True)
class ClosedLoopRequest:
    """Settings that were found to be possible, with their lists read."""

    settings: ClosedLoopSettings
    delays_ms: tuple[float, ...]
    benchmark: Benchmark[Any]
    protocol: EpisodeProtocol
    scenes: tuple[Scene, ...]  # in the order they are run
    dense: DenseFolder


def check_request(settings: ClosedLoopSettings) -> ClosedLoopRequest:
    """Refuse whatever cannot work, before anything is written.

    Raises:
        EinSortError: one message that names what was asked for, and what would be valid.
    """
    goals = check_arms(settings)
    check_available(settings.backend)
    _check_numbers(settings)
    if settings.record:
        import_rerun()
    if settings.track:
        import_tracker(settings.track)
    benchmark = find_benchmark(settings.suite)
    check_displacement(settings.displace, benchmark)
    protocol = benchmark.load_protocol(settings.protocol)
    scenes = _list_scenes(settings, benchmark)
    dense = find_policy(settings.policy)
    check_features(dense, benchmark)
    _check_runtime(settings, goals.codecs, dense)
    delays_ms = read_delays(settings.latency)
    return ClosedLoopRequest(settings, delays_ms, benchmark, protocol, tuple(scenes), dense)


class _Median(Struct, frozen=True):
    p50: float


class _Receipt(Struct, frozen=True):
    """What is read here of a receipt of `einsort-vla bench`."""

    latency_ms: Mapping[str, _Median]


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
        delays.append(shown(delay))
    return tuple(dict.fromkeys(delays))


def _receipt_ms(path: Path) -> float:
    try:
        return read_json(path, _Receipt).latency_ms[WHOLE_CHUNK].p50
    except (CheckpointError, KeyError) as error:
        what = str(error).rstrip(".")
        raise UsageError(
            f"--latency {path} is neither milliseconds nor a receipt of `einsort-vla bench`: "
            f"{what}."
        ) from None


def _check_numbers(settings: ClosedLoopSettings) -> None:
    check_least(1, episodes=settings.episodes, workers=settings.workers, batch=settings.batch)
    check_least(0, seed=settings.seed, first_state=settings.first_state)
    if not MIN_MARGIN <= settings.margin < 1:
        raise UsageError(
            f"--margin {settings.margin} is outside [{MIN_MARGIN}, 1); 0.02 is two points."
        )
    if settings.ray and (settings.video or settings.record or settings.runtime == "onnx"):
        raise UsageError(
            "--ray runs PyTorch without --video and --record: files stay on their machine."
        )
    if settings.wrong_pictures and not settings.displace:
        raise UsageError("--wrong-pictures needs --displace METRES, such as 0.04.")


def find_benchmark(suites: str) -> Benchmark[Any]:
    """Of one suite, or of several separated by commas.

    Raises:
        UsageError: no environment has such suites, or they belong to several.
    """
    first, *others = [benchmark_of(suite) for suite in suites.split(",")]
    if other := next((each for each in others if each is not first), None):
        raise UsageError(
            f"--suite {suites} names suites of {first.name} and of {other.name}; "
            "a run has one environment."
        )
    return first


def check_displacement(displacement_m: float, benchmark: Benchmark[Any]) -> None:
    """Refuse to move objects farther than the environment can.

    Raises:
        UsageError: the distance is outside its range.
    """
    if not 0 <= displacement_m <= benchmark.max_displacement_m:
        raise UsageError(
            f"--displace {displacement_m} is outside [0, {benchmark.max_displacement_m}] metres."
        )


def _list_scenes(settings: ClosedLoopSettings, benchmark: Benchmark[Any]) -> list[Scene]:
    scenes = []
    for suite, task_id in list_tasks(settings.suite, settings.tasks, benchmark):
        n_states = benchmark.n_states(suite, task_id)
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


def list_tasks(suites: str, tasks: str, benchmark: Benchmark[Any]) -> list[tuple[str, int]]:
    """The suites and numbers of the tasks that `--suite` and `--tasks` mean, each once.

    Raises:
        UsageError: a suite or a task does not exist, or the text is no list of numbers.
    """
    found = []
    for suite in suites.split(","):
        n_tasks = benchmark.n_tasks(suite)
        try:
            numbers = range(n_tasks) if tasks == "all" else [int(n) for n in tasks.split(",")]
        except ValueError as error:
            raise UsageError(
                f"--tasks {tasks!r} is not a list of numbers such as 0,3,7."
            ) from error
        for task_id in numbers:
            benchmark.sentence(suite, task_id)  # refuses an unknown task
            found.append((suite, task_id))
    return list(dict.fromkeys(found))


def _check_runtime(
    settings: ClosedLoopSettings, codecs: Sequence[Codec], dense: DenseFolder
) -> None:
    """Refuse what ONNX Runtime cannot run."""
    if settings.runtime == "torch":
        return
    from einsort_vla.export.linear import OPERATORS

    if others := [codec for codec in codecs if codec.form not in OPERATORS]:
        raise UsageError(f"--runtime onnx runs --codec {', '.join(OPERATORS)}, not {others[0]}.")
    if settings.backend != "decoded":
        raise UsageError("--backend is for --runtime torch; ONNX Runtime has code of its own.")
    if settings.batch > 1:
        raise UsageError("--batch is for --runtime torch; the exported graph takes one look.")
    export_of(dense.policy_type)


def find_policy(policy: str) -> DenseFolder:
    """The dense policy that a folder, a hub id or the shipped policy's name stands for.

    Raises:
        CheckpointError: there is no such policy, or it is compressed already.
    """
    is_shipped = policy == REFERENCE_POLICY and not Path(REFERENCE_POLICY).exists()
    return DenseFolder(ROOT / REFERENCE_POLICY if is_shipped else resolve_folder(policy))


def check_features(dense: DenseFolder, benchmark: Benchmark[Any]) -> None:
    """Refuse a policy that the environment's pictures, states and actions do not fit.

    Raises:
        UsageError: it was trained with others.
    """
    inputs, outputs = input_features(dense.config), output_features(dense.config)
    features = benchmark.features
    if not dense.is_lerobot:
        raise UsageError(
            f"{dense.folder} is a Transformers model ({dense.policy_type}), not a robot's policy. "
            "eval/language.py and eval/textvqa.py are for such."
        )
    if not inputs:
        raise UsageError(
            f"{dense.folder} does not say which cameras it was trained with: input_features of its "
            f"config.json is empty. Write them there; {benchmark.name} has "
            f"{', '.join(features.pictures)}."
        )
    if other := sorted(set(pictures_of(dense.config)) - set(features.pictures)):
        raise UsageError(
            f"{dense.folder} was trained with the cameras {', '.join(other)}; "
            f"{benchmark.name} has {', '.join(features.pictures)}."
        )
    for what, feature, size in (
        ("state", inputs.get(STATE_KEY), features.state_size),
        ("action", outputs.get("action"), features.action_size),
    ):
        if feature is not None and feature.shape != (size,):
            raise UsageError(
                f"{dense.folder} was trained with {what}s of {list(feature.shape)} numbers; "
                f"{benchmark.name}'s have {size}."
            )
