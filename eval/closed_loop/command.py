"""The whole evaluation: arms, episodes that are missing, report and pages."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec.structs import replace
from rich.console import Console

from einsort_vla.checkpoint import write_results
from einsort_vla.cli.calibration import calibration_of
from einsort_vla.cli.run import INCOMPLETE
from einsort_vla.kernels import device_of
from einsort_vla.plan import LayerStatistics
from einsort_vla.results.arms import ArmFacts
from einsort_vla.results.card import card_text
from einsort_vla.results.closed_loop import build_report
from einsort_vla.results.episode import read_episodes, write_episodes
from einsort_vla.results.run import (
    CLOSED_LOOP,
    LOG,
    VIDEOS,
    Design,
    Run,
    Scenes,
    Task,
    read_run,
    write_run,
)
from eval.closed_loop.baseline import read_dense
from eval.closed_loop.crew import Crew, check_memory, loaded_bytes, local_crew
from eval.closed_loop.followers import Followers
from eval.closed_loop.request import ClosedLoopRequest, check_request
from eval.closed_loop.schedule import Schedule
from eval.closed_loop.settings import ClosedLoopSettings
from eval.closed_loop.worker import Station
from eval.run.arms import Arm
from eval.run.copies import Copy, describe_arms, list_arms, make_copies, plan_copies
from eval.run.output import describe_run, publish, run_folder

POLICIES = "policies"
SCRIPT = "eval/libero.py"  # as pages name it
RECORDINGS = "recordings"
CALIBRATE_BELOW_BITS = 2.4  # closed loop, docs/codec.md: 11/100 at 1.6 bits, 96/100 calibrated


def evaluate(settings: ClosedLoopSettings, console: Console) -> int:
    """Run the evaluation; 0 if every episode ended in success or failure."""
    request = check_request(settings)
    calibration = calibration_of(settings.calibrate, request.dense, console)
    copies = plan_copies(request.dense, settings, calibration)
    _advise(copies, calibration, console)
    if settings.ray is None:
        check_memory(settings.workers, (1 + len(copies)) * loaded_bytes(request.dense))
    dense = read_dense(settings.baseline, request) if settings.baseline else []

    def describe_in(output: Path) -> Run:
        return _describe(request, describe_arms(copies, _arms(request, copies, output)))

    with run_folder(settings.suite.partition("_")[0], settings, describe_in) as output:
        if not (output / LOG).exists():
            write_episodes(output / LOG, dense)
        return _complete(request, copies, calibration, output, console)


def _describe(request: ClosedLoopRequest, arms: Sequence[ArmFacts]) -> Run:
    """What run.json says; see docs/evaluation.md."""
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
    packages = request.benchmark.packages
    run = describe_run(CLOSED_LOOP, SCRIPT, settings.policy, settings, inputs, packages)
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


def _complete(
    request: ClosedLoopRequest,
    copies: Sequence[Copy],
    calibration: LayerStatistics | None,
    output: Path,
    console: Console,
) -> int:
    """Make the policies, run the episodes that are missing, write the report."""
    arms, runtime = _arms(request, copies, output), request.settings.runtime
    make_copies(request.dense, copies, output / POLICIES, calibration, console, runtime)
    if exact := [arm.name for arm in arms if arm.is_exact]:
        console.print(
            f"{', '.join(exact)}: the dense weights bit for bit; the dense arm's episodes count.",
        )
    run, made = read_run(output), tuple(describe_arms(copies, arms))  # now with bytes
    assert run.design
    run = replace(run, design=replace(run.design, arms=made))
    write_run(output, run)
    done = _run(request, [arm for arm in arms if not arm.is_exact], output, console)
    report = build_report(run, read_episodes(output / LOG))
    code = publish(report, output, console)
    for arm in arms:
        if arm.reference and not arm.delay_ms and report.complete:
            write_results(arm.folder, card_text(report, arm.name))
    return code if done else INCOMPLETE


def _arms(request: ClosedLoopRequest, copies: Sequence[Copy], output: Path) -> list[Arm]:
    settings, device = request.settings, device_of(request.settings.backend)
    return list_arms(
        request.dense, copies, output / POLICIES, request.delays_ms, settings.backend, device,
        settings.runtime,
    )  # fmt: skip


def _advise(copies: Sequence[Copy], calibration: LayerStatistics | None, console: Console) -> None:
    bits = min((copy.plan.bits_per_weight for copy in copies), default=16.0)
    if calibration is None and bits < CALIBRATE_BELOW_BITS:
        console.print(
            f"Note: {bits:.1f} bits a weight without --calibrate. On the reference policy, "
            f"calibration makes the difference below {CALIBRATE_BELOW_BITS} bits: "
            "python eval/calibrate.py --output DIR",
        )


def _run(request: ClosedLoopRequest, arms: Sequence[Arm], output: Path, console: Console) -> bool:
    """Run what is missing; False if it was interrupted."""
    log = output / LOG
    finished = [record for record in read_episodes(log) if record.outcome != "error"]
    schedule = Schedule(request.scenes, arms, [record.key for record in finished])
    followers = Followers(request, arms, finished, output, console)
    try:
        with followers, _crew(request, output) as crew:
            crew.run(schedule, log, followers.add, followers.decided)
    except KeyboardInterrupt:
        console.print(
            f"Stopped: {len(read_episodes(log))} of {len(request.scenes) * len(arms)} episodes "
            f"are kept in {output}. The same command with --resume goes on."
        )
        return False
    return True


@contextmanager
def _crew(request: ClosedLoopRequest, output: Path) -> Iterator[Crew]:
    settings = request.settings
    station = Station(
        request.benchmark,
        request.protocol,
        output / VIDEOS if settings.video else None,
        output / RECORDINGS if settings.record else None,
    )
    if settings.ray is None:
        with local_crew(settings.workers, station, settings.batch) as crew:
            yield crew
    else:
        from eval.closed_loop.ray_crew import ray_crew

        with ray_crew(settings.ray, settings.workers, station, settings.batch) as crew:
            yield crew
