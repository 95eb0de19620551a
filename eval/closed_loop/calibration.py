"""Collects what `--calibrate` reads: what a dense policy's layers see, and which of them matter."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

from einsort_vla.atomic import writing
from einsort_vla.errors import CheckpointError, SimulatorError
from einsort_vla.lerobot import (
    Observation,
    load_observations,
    measure_sensitivities,
    save_observations,
    spread,
    watch_layers,
)
from einsort_vla.plan import LayerStatistics
from einsort_vla.results.episode import Scene
from envs.environment import Benchmark, Environment, environment_for
from eval.closed_loop.request import (
    check_displacement,
    check_features,
    find_benchmark,
    find_policy,
    list_tasks,
)
from eval.closed_loop.rollout import run_episode
from eval.closed_loop.settings import CalibrationSettings
from eval.run.arms import DENSE
from eval.run.settings import check_least
from policies.lerobot_adapter import LeRobotPolicy, load
from policies.protocol import Policy

STATISTICS = "statistics.safetensors"


def calibrate(settings: CalibrationSettings, console: Console) -> int:
    """Run what is missing; observations are on disk after every episode."""
    check_least(1, episodes=settings.episodes)
    check_least(0, seed=settings.seed, probes=settings.probes)
    if (settings.output / STATISTICS).exists():
        raise CheckpointError(f"{settings.output} is complete already; nothing was written over.")
    benchmark, dense = find_benchmark(settings.suite), find_policy(settings.policy)
    scenes = _scenes(settings, benchmark)
    check_features(dense, benchmark)
    names, fingerprint = list(dense.matrices), dense.sha256
    observations_folder = settings.output / f"observations-{fingerprint[:12]}"
    with writing(settings.output):
        observations_folder.mkdir(parents=True, exist_ok=True)
    policy = load(str(dense.folder))
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        files = collect(policy, benchmark, scenes, observations_folder, progress)
        observations = load_observations(files)
        statistics = LayerStatistics(fingerprint)
        looks = progress.add_task("looks", total=len(observations))
        watch_layers(
            policy.loaded, statistics, names, observations, lambda: progress.advance(looks)
        )
        if settings.probes:
            task = progress.add_task("layers coded alone", total=len(names))
            probes = spread(observations, settings.probes)
            statistics.sensitivities = measure_sensitivities(
                policy.loaded, probes, statistics, lambda: progress.advance(task)
            )
    statistics.save(settings.output / STATISTICS)
    console.print(
        f"{settings.output / STATISTICS}: inputs of {len(names)} layers at {len(observations)} "
        f"looks of {len(files)} episodes. Use it: "
        f"eval/libero.py --rate 0.875 --calibrate {settings.output / STATISTICS}",
        soft_wrap=True,
    )
    return 0


def _scenes(settings: CalibrationSettings, benchmark: Benchmark[Any]) -> list[Scene]:
    check_displacement(settings.displace, benchmark)
    return [
        Scene(suite, task_id, k, settings.seed, settings.displace, stored=False)
        for suite, task_id in list_tasks(settings.suite, settings.tasks, benchmark)
        for k in range(settings.episodes)
    ]


def collect(
    policy: LeRobotPolicy,
    benchmark: Benchmark[Any],
    scenes: Sequence[Scene],
    folder: Path,
    progress: Progress,
) -> list[Path]:
    """One file an episode; those that are there are not run again."""
    env: Environment | None = None
    protocol, files = benchmark.load_protocol(), []
    for scene in progress.track(scenes, description="episodes"):
        moved = f"{1000 * scene.displacement_m:.0f}mm"
        name = f"{scene.suite}-{scene.task_id}-{scene.episode}-seed{scene.seed}-{moved}"
        files.append(folder / f"{name}.safetensors")
        if files[-1].exists():
            continue
        env = environment_for(env, benchmark, (scene.suite, scene.task_id), protocol)
        recorder = Recorder(policy)
        record = run_episode(env, recorder, scene, DENSE)
        if record.outcome == "error":
            raise SimulatorError(f"{scene}: {record.error}")
        save_observations(files[-1], recorder.seen)
    if env is not None:
        env.close()
    return files


class Recorder:
    """A policy that acts as another one and keeps what it was shown."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.chunk_size, self.n_action_steps = policy.chunk_size, policy.n_action_steps
        self.layers, self.memory_bytes = policy.layers, policy.memory_bytes
        self.last_chunk_ms = 0.0
        self.seen: list[Observation] = []

    def reset(self, seed: int) -> None:
        self._policy.reset(seed)

    def predict_action_chunk(self, observation: Observation) -> np.ndarray:
        self.seen.append(observation)
        chunk = self._policy.predict_action_chunk(observation)
        self.last_chunk_ms = self._policy.last_chunk_ms
        return chunk
