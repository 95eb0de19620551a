"""Workers and policy servers on this machine, as processes."""

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol

import psutil

from einsort_vla.checkpoint import DenseFolder
from einsort_vla.errors import SimulatorError, UsageError
from einsort_vla.results.episode import EpisodeRecord
from eval.closed_loop.processes import CONTEXT, children_ignore_interrupts
from eval.closed_loop.schedule import Job
from eval.closed_loop.server import Address, serve
from eval.closed_loop.worker import Station, work

WORKER_BYTES = 2_600_000_000  # a simulator with its meshes and LeRobot's imports; measured
SERVER_BYTES = 1_000_000_000  # beside its policies
RETIRE_BYTES = 4_000_000_000  # a worker that has grown so far is ended at its next task
MOST_ENDS = 10  # of servers, without an episode between them
WORKERS_A_SERVER = 4  # pictures and physics take four to six times as long as the shipped policy

_OUT_OF_MEMORY = "-9 most often means that memory ran out"


@dataclass(frozen=True)
class Ended:
    """An episode is over: by its record, or because its worker died."""

    worker: int
    job: Job
    record: EpisodeRecord | None
    reason: str = ""


class Crew(Protocol):
    """Workers that take one episode each, here or on other machines."""

    def tasks(self) -> dict[int, tuple[str, int]]:
        """The task that each worker has a simulator for."""
        ...

    def idle(self) -> list[int]:
        """Workers without an episode."""
        ...

    def start(self, worker: int, job: Job) -> None:
        """Give an episode to an idle worker."""
        ...

    def wait(self) -> list[Ended]:
        """Episodes that are over; returns as soon as there is one."""
        ...


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


@contextmanager
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
    job: Job | None = None
    task: tuple[str, int] | None = None


class LocalCrew:
    """A `Crew` of processes; each worker is started with its first episode."""

    def __init__(self, n_workers: int, station: Station, batch: int, folder: Path) -> None:
        self._station, self._batch = station, batch
        key = secrets.token_bytes(16)
        servers = range(n_servers(n_workers))
        self._servers: dict[Address, BaseProcess | None] = {
            Address(str(folder / f"policies-{k}"), key): None for k in servers
        }
        self._posts = [_Post() for _ in range(n_workers)]
        self._n_ends = 0  # of servers, since the last episode ended

    def tasks(self) -> dict[int, tuple[str, int]]:
        return {k: post.task for k, post in enumerate(self._posts) if post.task}

    def idle(self) -> list[int]:
        return [k for k, post in enumerate(self._posts) if post.job is None]

    def start(self, worker: int, job: Job) -> None:
        post = self._posts[worker]
        is_large = post.task != job.task and _bytes_of(post.process) > RETIRE_BYTES
        if post.process and (is_large or not post.process.is_alive()):
            self._end(post)
        if post.process is None:
            self._open(worker)
        assert post.pipe is not None
        post.job, post.task = job, job.task
        try:
            post.pipe.send(job)
        except OSError:  # it died since; `wait` finds it
            return

    def wait(self) -> list[Ended]:
        busy = [(k, post) for k, post in enumerate(self._posts) if post.job]
        for address in self._servers:
            self._serve(address)
        servers = [process.sentinel for process in self._servers.values() if process]
        pipes = [post.pipe for _, post in busy if post.pipe]
        ready = wait([*pipes, *servers])
        ended = [self._collect(k, post) for k, post in busy if post.pipe in ready]
        return ended  # a server that died is started again by the next call

    def stop(self) -> None:
        """End everybody now, in the middle of an episode or not."""
        for post in self._posts:
            self._end(post)
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

    def _collect(self, worker: int, post: _Post) -> Ended:
        job, process = post.job, post.process
        assert job is not None
        assert post.pipe is not None
        assert process is not None
        try:
            record = post.pipe.recv()
        except (EOFError, OSError):
            process.join()
            reason = f"its worker died twice (exit code {process.exitcode}; {_OUT_OF_MEMORY})"
            self._end(post)
            return Ended(worker, job, None, reason)
        post.job, self._n_ends = None, 0
        return Ended(worker, job, record)

    def _end(self, post: _Post) -> None:
        if post.process:
            _kill(post.process)
        if post.pipe:
            post.pipe.close()
        post.process = post.pipe = post.job = post.task = None


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
