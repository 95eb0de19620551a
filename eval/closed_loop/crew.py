"""Workers and policy servers on this machine, as processes."""

import contextlib
import os
import secrets
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil

from einsort_vla.checkpoint import DenseFolder
from einsort_vla.errors import SimulatorError, UsageError
from einsort_vla.results.episode import EpisodeRecord
from einsort_vla.results.log import appending
from eval.closed_loop.processes import CONTEXT, children_ignore_interrupts
from eval.closed_loop.schedule import Job, Schedule
from eval.closed_loop.server import Address, serve
from eval.closed_loop.worker import Station, work

WORKER_BYTES = 2_600_000_000  # a simulator with its meshes and LeRobot's imports; measured
SERVER_BYTES = 1_000_000_000  # beside its policies
RETIRE_BYTES = 4_000_000_000  # a worker that has grown so far is ended at its next task
MOST_ENDS = 10  # of servers, without an episode between them
WORKERS_A_SERVER = 4  # pictures and physics take four to six times as long as the shipped policy

OnRecord = Callable[[EpisodeRecord], None]

_OUT_OF_MEMORY = "-9 most often means that memory ran out"


@dataclass(frozen=True)
class Ended:
    """An episode is over: by its record, or because its worker died."""

    job: Job
    record: EpisodeRecord | None
    reason: str = ""


class Crew(ABC):
    """Workers that take one episode each, here or on other machines."""

    def __init__(self, n_workers: int) -> None:
        self._n_workers = n_workers
        self._jobs: dict[int, Job] = {}  # by worker
        self._tasks: dict[int, tuple[str, int]] = {}  # that each worker has a simulator for

    def run(
        self, schedule: Schedule, log: Path, on_record: OnRecord, stopped: Callable[[], list[str]]
    ) -> None:
        """Run episodes until none is left; each is on disk as soon as it has ended.

        Args:
            schedule: what is to be run.
            log: episodes.jsonl, which is appended to.
            on_record: told of every finished episode, in the order they end.
            stopped: names arms of which no further episodes are needed.
        """
        with appending(log) as write:
            self._hand_out(schedule)
            while self._jobs:
                for ended in self._wait():
                    record = ended.record or schedule.lose(ended.job, ended.reason)
                    if record is None:
                        continue  # it is run once more
                    write(record)
                    on_record(record)
                    for arm in stopped():
                        schedule.drop(arm)
                self._hand_out(schedule)

    def _hand_out(self, schedule: Schedule) -> None:
        """Give an episode to every idle worker."""
        for worker in sorted(set(range(self._n_workers)) - self._jobs.keys()):
            taken = [task for other, task in self._tasks.items() if other != worker]
            job = schedule.take(self._tasks.get(worker), taken)
            if job is None:
                return
            self._start(worker, job)
            self._jobs[worker], self._tasks[worker] = job, job.task

    @abstractmethod
    def _start(self, worker: int, job: Job) -> None:
        """Give an episode to an idle worker."""

    @abstractmethod
    def _wait(self) -> list[Ended]:
        """Take episodes that are over out of `_jobs`; returns as soon as there is one."""


def check_memory(n_workers: int, policy_bytes: int) -> None:
    """Refuse more workers than fit into memory.

    Args:
        n_workers: simulators at once.
        policy_bytes: of all policies, as they are loaded.

    Raises:
        UsageError: they do not fit; it says how many do.
    """
    free = psutil.virtual_memory().available
    fits = next((n for n in range(n_workers, 0, -1) if needed_bytes(n, policy_bytes) <= free), 0)
    if fits < n_workers:
        raise UsageError(
            f"--workers {n_workers} would need about "
            f"{needed_bytes(n_workers, policy_bytes) / 1e9:.1f} GB, and {free / 1e9:.1f} GB are "
            f"free: {fits} fit."
        )


def needed_bytes(n_workers: int, policy_bytes: int) -> int:
    """Of memory, for so many workers and the servers that feed them."""
    return n_workers * WORKER_BYTES + n_servers(n_workers) * (SERVER_BYTES + policy_bytes)


def n_servers(n_workers: int) -> int:
    return -(-n_workers // WORKERS_A_SERVER)


@contextlib.contextmanager
def local_crew(n_workers: int, station: Station, batch: int) -> Iterator["LocalCrew"]:
    """Processes that end when it is left."""
    with tempfile.TemporaryDirectory(prefix="einsort-") as folder:
        crew = LocalCrew(n_workers, station, batch, Path(folder))
        try:
            yield crew
        finally:
            crew.stop()


@dataclass
class _Post:
    """The place of one worker; whoever dies there is replaced."""

    process: BaseProcess | None = None
    pipe: Connection | None = None


class LocalCrew(Crew):
    """A `Crew` of processes; each worker is started with its first episode."""

    def __init__(self, n_workers: int, station: Station, batch: int, folder: Path) -> None:
        super().__init__(n_workers)
        self._station, self._batch = station, batch
        key = secrets.token_bytes(16)
        servers = range(n_servers(n_workers))
        self._servers: dict[Address, BaseProcess | None] = {
            Address(str(folder / f"policies-{k}"), key): None for k in servers
        }
        self._posts = [_Post() for _ in range(n_workers)]
        self._n_ends = 0  # of servers, since the last episode ended

    def _start(self, worker: int, job: Job) -> None:
        post = self._posts[worker]
        is_large = self._tasks.get(worker) != job.task and _bytes_of(post.process) > RETIRE_BYTES
        if post.process and (is_large or not post.process.is_alive()):
            self._end(worker)
        if post.process is None:
            self._open(worker)
        assert post.pipe is not None
        with contextlib.suppress(OSError):  # it died since; `_wait` finds it
            post.pipe.send(job)

    def _wait(self) -> list[Ended]:
        for address in self._servers:
            self._serve(address)  # one that died, again
        servers = [process.sentinel for process in self._servers.values() if process]
        pipes = {k: pipe for k in self._jobs if (pipe := self._posts[k].pipe)}
        ready = wait([*pipes.values(), *servers])
        return [self._collect(k, pipe) for k, pipe in pipes.items() if pipe in ready]

    def stop(self) -> None:
        """End everybody now, in the middle of an episode or not."""
        for worker in range(self._n_workers):
            self._end(worker)
        for process in self._servers.values():
            if process:
                _kill(process)

    def _open(self, worker: int) -> None:
        address = list(self._servers)[worker % len(self._servers)]
        self._serve(address)
        here, there = CONTEXT.Pipe()
        process = CONTEXT.Process(target=work, args=(there, self._station, address))
        _start(process)
        there.close()
        self._posts[worker].process, self._posts[worker].pipe = process, here

    def _serve(self, address: Address) -> None:
        """Start a server, for the first time or again."""
        process = self._servers[address]
        if process is None or not process.is_alive():
            self._n_ends += process is not None
            if process and self._n_ends > MOST_ENDS:
                raise SimulatorError(
                    f"the policy server has ended {MOST_ENDS} times since the last episode, now "
                    f"with exit code {process.exitcode} ({_OUT_OF_MEMORY}). Finished episodes are "
                    "kept: go on with --resume."
                )
            process = CONTEXT.Process(target=serve, args=(address, self._batch))
            _start(process)
            self._servers[address] = process

    def _collect(self, worker: int, pipe: Connection) -> Ended:
        job, process = self._jobs.pop(worker), self._posts[worker].process
        assert process is not None
        try:
            record = pipe.recv()
        except (EOFError, OSError):
            process.join()
            reason = f"its worker died twice (exit code {process.exitcode}; {_OUT_OF_MEMORY})"
            self._end(worker)
            return Ended(job, None, reason)
        self._n_ends = 0
        return Ended(job, record)

    def _end(self, worker: int) -> None:
        post = self._posts[worker]
        if post.process:
            _kill(post.process)
        if post.pipe:
            post.pipe.close()
        post.process = post.pipe = None
        self._tasks.pop(worker, None)


def _start(process: BaseProcess) -> None:
    """One thread each: more would fight for the cores that simulators need."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        with children_ignore_interrupts():
            process.start()
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def _kill(process: BaseProcess) -> None:
    process.kill()
    process.join()


def _bytes_of(process: BaseProcess | None) -> int:
    try:
        return psutil.Process(process.pid).memory_info().rss if process else 0
    except psutil.Error:  # it has just ended
        return 0


def loaded_bytes(dense: DenseFolder) -> int:
    """Of a policy in float32, from weight files that hold two bytes a weight."""
    return 2 * dense.n_bytes
