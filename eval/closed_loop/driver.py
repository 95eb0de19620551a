"""Runs all episodes of a run that its log does not hold yet."""

from collections.abc import Callable, Sequence
from pathlib import Path

from einsort_vla.results.episode import EpisodeRecord
from einsort_vla.results.log import appending
from eval.closed_loop.crew import Crew, Ended
from eval.closed_loop.schedule import Schedule

OnRecord = Callable[[EpisodeRecord], None]


def run_all(
    schedule: Schedule,
    crew: Crew,
    log: Path,
    on_record: OnRecord,
    stopped: Callable[[], Sequence[str]] = lambda: (),
) -> None:
    """Give episodes to workers until none is left; each is on disk as soon as it has ended.

    Args:
        schedule: what is to be run.
        crew: who runs it.
        log: episodes.jsonl, which is appended to.
        on_record: told of every finished episode, in the order they end.
        stopped: names arms of which no further episodes are needed.
    """
    with appending(log) as write:
        n_running = _hand_out(schedule, crew)
        while n_running:
            for ended in crew.wait():
                n_running -= 1
                if (record := _judge(schedule, ended)) is not None:
                    write(record.as_dict())
                    on_record(record)
                    for arm in stopped():
                        schedule.drop(arm)
            n_running += _hand_out(schedule, crew)


def _hand_out(schedule: Schedule, crew: Crew) -> int:
    """Give an episode to every idle worker; how many were given."""
    n_given = 0
    for worker in crew.idle():
        tasks = crew.tasks()
        own = tasks.pop(worker, None)
        job = schedule.take(own, list(tasks.values()))
        if job is None:
            break
        crew.start(worker, job)
        n_given += 1
    return n_given


def _judge(schedule: Schedule, ended: Ended) -> EpisodeRecord | None:
    """What an episode came to; None if it is to be run once more."""
    return ended.record or schedule.lose(ended.job, ended.reason)
