"""Episodes spread over worker processes, one simulator each; every result is on disk at once."""

import contextlib
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import groupby
from multiprocessing.managers import SyncManager
from pathlib import Path
from queue import Empty
from typing import Any

import numpy as np

from einsort_vla.errors import SimulatorError
from envs.libero import LiberoEnv
from eval.rollout import EpisodeRecord, Scene, run_episode
from eval.video import write_side_by_side
from policies.lerobot_adapter import LeRobotPolicy, load
from policies.onnx_adapter import load_onnx

POLL_S = 0.2


@dataclass(frozen=True)
class Arm:
    """One policy under test."""

    name: str
    path: str
    backend: str = "dense"
    bundle: Path | None = None  # its export, which ONNX Runtime then runs
    device: str = "cpu"

    def load(self) -> LeRobotPolicy:
        if self.bundle is not None:
            return load_onnx(self.path, self.bundle)
        return load(self.path, self.device, self.backend)


@dataclass(frozen=True)
class TaskJob:
    """The episodes of one task that one worker runs, so that it builds one simulator for them."""

    scenes: tuple[Scene, ...]
    arms: tuple[Arm, ...]
    finished: frozenset[tuple[str, int, int, str]]
    video_folder: Path | None


def run_all(
    scenes: list[Scene],
    arms: list[Arm],
    n_workers: int,
    log: Path,
    on_record: Callable[[EpisodeRecord], None],
    video_folder: Path | None = None,
) -> None:
    """Run all episodes of all arms that `log` does not hold yet, appending each as it ends.

    Raises:
        SimulatorError: a worker process died (most often: out of memory).
    """
    finished = frozenset(record.key for record in read_log(log))
    jobs = [
        TaskJob(part, tuple(arms), finished, video_folder)
        for part in _split(scenes, n_workers)
        if any((s.suite, s.task_id, s.episode, a.name) not in finished for s in part for a in arms)
    ]
    context = multiprocessing.get_context("spawn")
    with _children_ignore_interrupts():
        manager = SyncManager(ctx=context)
        manager.start(_end_with_parent)
        results = manager.Queue()
        n_processes = max(1, min(n_workers, len(jobs)))
        pool = ProcessPoolExecutor(n_processes, context, initializer=_end_with_parent)
        futures = {pool.submit(_run_job, job, results) for job in jobs}
    with manager, log.open("a", encoding="utf-8") as file:
        if log.stat().st_size and not log.read_bytes().endswith(b"\n"):
            file.write("\n")  # a kill cut the last line: what follows must not join it
        try:
            for record in _collect(futures, results):
                file.write(json.dumps(record.as_dict()) + "\n")
                file.flush()
                on_record(record)
        except BrokenProcessPool as error:
            raise SimulatorError(
                "a worker process died, most often for lack of memory (2.5 GB each). "
                "Finished episodes are kept: go on with --resume and fewer --workers."
            ) from error
        finally:
            _stop(pool)


def begin_log(log: Path, records: Iterable[EpisodeRecord]) -> None:
    """Write a log that begins with these episodes, unless there is one already."""
    if not log.exists():
        lines = [json.dumps(record.as_dict()) + "\n" for record in records]
        log.write_text("".join(lines), encoding="utf-8")


def read_log(log: Path) -> list[EpisodeRecord]:
    """Finished episodes; those that ended in an error are to be run again, so they are left out.

    A line cut short by a kill is left out too.
    """
    if not log.exists():
        return []
    records: dict[Any, EpisodeRecord] = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):
            record = EpisodeRecord.from_dict(json.loads(line))
            records[record.key] = record
    return [record for record in records.values() if record.outcome != "error"]


def _split(scenes: list[Scene], n_workers: int) -> Iterator[tuple[Scene, ...]]:
    """Scenes of one task together; tasks are halved when there are fewer of them than workers."""
    groups = [tuple(g) for _, g in groupby(scenes, key=lambda s: (s.suite, s.task_id))]
    n_parts = -(-n_workers // len(groups)) if groups else 1
    for group in groups:
        yield from (part for i in range(n_parts) if (part := group[i::n_parts]))


def _collect(futures: set, results: Any) -> Iterator[EpisodeRecord]:
    """Yield records as they come; raise what a worker raised."""
    pending = set(futures)
    while pending:
        done, pending = wait(pending, timeout=POLL_S, return_when=FIRST_COMPLETED)
        yield from _drain(results)
        for future in done:
            future.result()
    yield from _drain(results)


def _drain(results: Any) -> Iterable[EpisodeRecord]:
    with contextlib.suppress(Empty):
        while True:
            yield results.get_nowait()


@contextlib.contextmanager
def _children_ignore_interrupts() -> Iterator[None]:
    """Processes started within inherit it: on Ctrl-C the parent alone acts, and ends them."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _stop(pool: ProcessPoolExecutor) -> None:
    """End the workers now; after an interrupt they may be in the middle of an episode."""
    processes = list((getattr(pool, "_processes", None) or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()


def _end_with_parent() -> None:
    """A child of a killed parent would run on, on a core that someone else needs."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


_policies: dict[Arm, LeRobotPolicy] = {}  # of this worker process


def _run_job(job: TaskJob, results: Any) -> None:
    import torch

    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    for arm in job.arms:
        if arm not in _policies:
            _policies[arm] = arm.load()
    env = LiberoEnv(job.scenes[0].suite, job.scenes[0].task_id)
    try:
        for scene in job.scenes:
            _run_scene(env, scene, job, results)
    finally:
        env.close()


def _run_scene(env: LiberoEnv, scene: Scene, job: TaskJob, results: Any) -> None:
    """All arms of one scene one after the other, so that a kill leaves few half pairs."""
    frames: dict[str, list[np.ndarray]] = {}
    for arm in job.arms:
        if (scene.suite, scene.task_id, scene.episode, arm.name) in job.finished:
            continue
        on_look = frames.setdefault(arm.name, []).append if job.video_folder else None
        results.put(run_episode(env, _policies[arm], scene, arm.name, on_look))
    if job.video_folder and len(frames) == len(job.arms):
        name = f"{scene.suite}_task{scene.task_id}_episode{scene.episode}.mp4"
        look_hz = env.protocol.control_freq_hz / _policies[job.arms[0]].n_action_steps
        write_side_by_side(job.video_folder / name, frames, look_hz)
