"""A process with one simulator, that runs the episodes it is given."""

from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from einsort_vla.results.episode import EpisodeRecord, episode_name
from einsort_vla.runtime.observation import Observation
from envs.environment import Benchmark, Environment, EpisodeProtocol, environment_for
from eval.closed_loop.answers import AskedPolicy
from eval.closed_loop.processes import end_with_parent
from eval.closed_loop.recording import Recording
from eval.closed_loop.rollout import Watch, run_episode
from eval.closed_loop.schedule import Job
from eval.closed_loop.server import Address, RemotePolicy
from eval.closed_loop.video import frames_path, save_frames
from eval.run.arms import Arm, Variant

PROBE_EVERY = 5  # looks of the dense arm at one of which other arms are asked, too

Connect = Callable[[Variant], AskedPolicy]


@dataclass(frozen=True)
class Station:
    """What every worker of a run is told once."""

    benchmark: Benchmark[Any]
    protocol: EpisodeProtocol
    films: Path | None = None  # folder for the frames of every episode
    recordings: Path | None = None  # folder for a rerun recording of every episode


class Worker:
    """Runs episodes, one simulator at a time, built when a task's first episode comes."""

    def __init__(self, station: Station, connect: Connect) -> None:
        self._station, self._connect = station, connect
        self._env: Environment | None = None
        self._policies: dict[Variant, AskedPolicy] = {}

    def run(self, job: Job) -> EpisodeRecord:
        """An episode; what goes wrong makes its outcome `error`."""
        station = self._station
        try:
            self._env = environment_for(self._env, station.benchmark, job.task, station.protocol)
            policy = self._policy(job.arm)
            probe = _Probe(policy, {arm.name: self._policy(arm) for arm in job.probed})
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            return EpisodeRecord(job.scene, job.arm.name, "error", 0, 0.0, error=message)
        films, recordings = station.films, station.recordings
        frames: list[np.ndarray] = []
        name = episode_name(job.scene, job.arm.name)
        recording = Recording(recordings / f"{name}.rrd") if recordings else None

        def look(observation: Observation, chunk: np.ndarray) -> None:
            probe.look(observation, chunk)
            if recording:
                recording.look(observation, chunk)

        watch = Watch(look, frames.append if films else None)
        record = run_episode(self._env, policy, job.scene, job.arm.name, job.arm.delay_ms, watch)
        if recording:
            recording.close()
        if films and frames:
            save_frames(frames_path(films, name), frames)
        return replace(record, divergence=probe.result())

    def _policy(self, arm: Arm) -> AskedPolicy:
        if arm.variant not in self._policies:
            self._policies[arm.variant] = self._connect(arm.variant)
        return self._policies[arm.variant]


class _Probe:
    """Asks other arms at some of the looks of an episode: how far apart are their actions?"""

    def __init__(self, policy: AskedPolicy, others: dict[str, AskedPolicy]) -> None:
        self._policy, self._others = policy, others
        self._n_looks = 0
        self._distances: dict[str, list[float]] = {name: [] for name in others}

    def look(self, observation: Observation, chunk: np.ndarray) -> None:
        if self._others and self._n_looks % PROBE_EVERY == 0:
            norm = float(np.linalg.norm(chunk)) or 1.0
            for name, other in self._others.items():
                other.reset(self._policy.seed)
                answer = other.chunk_at(observation, self._n_looks)
                distance = float(np.linalg.norm(answer - chunk)) / norm
                if np.isfinite(distance):  # its own episodes are errors
                    self._distances[name].append(distance)
        self._n_looks += 1

    def result(self) -> dict[str, float]:
        """Root mean square over the looks of the relative distance, by arm."""
        return {
            name: float(np.sqrt(np.mean(np.square(found))))
            for name, found in self._distances.items()
            if found
        }


def work(pipe: Connection, station: Station, address: Address) -> None:
    """Run what comes through the pipe until it is closed; runs in a process of its own."""
    end_with_parent()
    worker = Worker(station, lambda variant: RemotePolicy(address, variant))
    while True:
        try:
            job: Job = pipe.recv()
        except EOFError:
            return
        pipe.send(worker.run(job))
