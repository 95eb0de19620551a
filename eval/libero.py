"""Closed-loop LIBERO evaluation: a policy, dense and compressed, on the same scenes."""

import sys
from pathlib import Path

if not __package__:  # run as a script: the root, not eval/, else `import libero` finds this file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from rich.console import Console

from einsort_vla.checkpoint import WEIGHTS, write_results
from einsort_vla.cli.calibration import calibration_of
from einsort_vla.cli.run import run_command
from einsort_vla.plan import InputStatistics
from einsort_vla.results import (
    LOG,
    PAGE,
    RUN,
    VIDEOS,
    read_episodes,
    read_run,
    write_episodes,
    write_run,
)
from einsort_vla.results.card import card_text
from einsort_vla.results.closed_loop import make_report
from einsort_vla.results.page import write_pages
from einsort_vla.results.summary import print_report
from eval.closed_loop.baseline import read_dense
from eval.closed_loop.crew import Crew, check_memory, local_crew, policy_bytes
from eval.closed_loop.driver import run_all
from eval.closed_loop.followers import Followers
from eval.closed_loop.request import Request, Settings, check_request
from eval.closed_loop.schedule import Schedule
from eval.closed_loop.worker import Station
from eval.run.arms import Arm
from eval.run.compression import Compressed, describe_arms, list_arms, make_all, plan_all
from eval.run.output import POLICIES, RECORDINGS, alone_in, describe_run, prepare


def main(settings: Settings, console: Console) -> int:
    """Run the evaluation; 0 if every episode ended in success or failure."""
    request = check_request(settings)
    calibration = calibration_of(settings.calibrate, request.folder, console)
    planned = plan_all(request, calibration, console)
    if settings.ray is None:
        n_policies = (1 + len(planned)) * [request.folder / WEIGHTS]
        check_memory(settings.workers, policy_bytes(n_policies))
    dense = read_dense(settings.baseline, request) if settings.baseline else []
    output = prepare(request)
    with alone_in(output):
        if not (output / RUN).exists():
            arms = describe_arms(request, planned, output / POLICIES)
            write_run(output, describe_run(request, arms))
        if not (output / LOG).exists():
            write_episodes(output / LOG, dense)
        return _evaluate(request, planned, calibration, output, console)


def _evaluate(
    request: Request,
    planned: Sequence[Compressed],
    calibration: InputStatistics | None,
    output: Path,
    console: Console,
) -> int:
    """Make the policies, run the episodes that are missing, write the report."""
    policies = output / POLICIES
    arms = list_arms(request, planned, policies)
    make_all(request, planned, calibration, policies, console)
    if exact := [arm.name for arm in arms if arm.is_exact]:
        console.print(
            f"{', '.join(exact)}: the dense weights bit for bit; the dense arm's episodes count.",
            highlight=False,
        )
    run = read_run(output)
    assert run.design
    made = tuple(describe_arms(request, planned, policies))  # now with bytes
    write_run(output, replace(run, design=replace(run.design, arms=made)))
    done = _run(request, [arm for arm in arms if not arm.is_exact], output, console)
    report = make_report(output)
    write_pages(report, output)
    for arm in arms:
        if arm.reference and not arm.delay_ms and report.complete:
            write_results(Path(arm.variant.path), card_text(report, arm.name))
    print_report(report, console)
    console.print(f"Report: {output / PAGE}", highlight=False, soft_wrap=True)
    return 0 if done and report.complete else 1


def _run(request: Request, arms: Sequence[Arm], output: Path, console: Console) -> bool:
    """Run what is missing; False if it was interrupted."""
    log = output / LOG
    finished = [record for record in read_episodes(log) if record.outcome != "error"]
    schedule = Schedule(request.scenes, arms, [record.key for record in finished])
    followers = Followers(request, arms, finished, output, console)
    try:
        with followers, _crew(request, output) as crew:
            run_all(schedule, crew, log, followers.add, followers.decided)
    except KeyboardInterrupt:
        console.print(
            f"Stopped: {len(read_episodes(log))} of {len(request.scenes) * len(arms)} episodes "
            f"are kept in {output}. The same command with --resume goes on."
        )
        return False
    return True


@contextmanager
def _crew(request: Request, output: Path) -> Iterator[Crew]:
    settings = request.settings
    station = Station(
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


if __name__ == "__main__":
    run_command(Settings, main, "eval/libero.py")
