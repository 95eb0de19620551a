"""A made-up run folder, for tests and for looking at pages: `python tests/results/made_up.py DIR`.

No robot moved: outcomes are drawn with a fixed seed, the compressed arms worse the higher the rate.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from einsort_vla.results import run as run_files
from einsort_vla.results.arms import ArmFacts
from einsort_vla.results.episode import EpisodeRecord, Scene, write_episodes
from einsort_vla.results.run import CLOSED_LOOP, Design, Run, Scenes, Task

DENSE_BYTES, WEIGHTS = 16_033_358, 7_650_000
DENSE_SUCCESS = 0.93
LOSS = {0.5: 0.0, 0.75: 0.0, 0.875: 0.01, 0.9: 0.15}  # of success, by rate
DELAYS_MS = (0.0, 100.0)
TASKS = [("libero_object", 0, "pick up the alphabet soup and place it in the basket", 280),
         ("libero_object", 3, "pick up the bbq sauce and place it in the basket", 280),
         ("libero_goal", 1, "put the bowl on the stove", 300),
         ("libero_goal", 4, "put the bowl on top of the cabinet", 300)]  # fmt: skip


def make_run(
    n_states: int = 25, rates: Sequence[float] = tuple(LOSS), delays: Sequence[float] = DELAYS_MS
) -> Run:
    """run.json of a made-up evaluation."""
    design = Design(
        environment="a made-up world",
        protocol={"name": "lerobot", "control_freq_hz": 20, "settle_steps": 10},
        scenes=Scenes(initial_states="stored", displacement_m=0.0, wrong_pictures=False, seed=0),
        tasks=tuple(
            Task(suite=suite, task_id=task_id, language=language, max_steps=steps,
                 states=tuple(range(n_states)))
            for suite, task_id, language, steps in TASKS
        ),
        arms=tuple(arm for delay in delays for arm in _arms(rates, delay)),
        margin=0.02,
        sequential=False,
    )  # fmt: skip
    return Run(
        kind=CLOSED_LOOP, script="eval/libero.py", model="policies/checkpoints/made-up",
        config={"rate": ",".join(f"{rate:g}" for rate in rates) or "0", "codec": "curve",
                "latency": ",".join(f"{delay:g}" for delay in delays), "episodes": n_states,
                "margin": 0.02},
        git_commit="0123abc", python="3.12.1", machine="x86_64, made-up processor",
        versions={"torch": "2.11.0", "mujoco": "3.3.2"}, inputs_sha256={"policy": "ab" * 32},
        design=design,
    )  # fmt: skip


def change_design(run: Run, **changes: Any) -> Run:
    """The run with another design."""
    return replace(run, design=replace(run.design, **changes))


def _arms(rates: Sequence[float], delay_ms: float) -> Iterator[ArmFacts]:
    suffix = f" +{delay_ms:g} ms" if delay_ms else ""
    dense = f"dense{suffix}"
    yield ArmFacts(name=dense, delay_ms=delay_ms, weight_bytes=DENSE_BYTES)
    for rate in rates:
        bits = 16 * (1 - rate)
        yield ArmFacts(
            name=f"curve {rate}{suffix}", reference=dense, codec="curve", rate_requested=rate,
            rate_achieved=rate + 0.0004, bits_per_weight=bits, delay_ms=delay_ms,
            weight_bytes=DENSE_BYTES - round(WEIGHTS * (16 - bits) / 8),
        )  # fmt: skip


def make_records(run: Run, seed: int = 0) -> list[EpisodeRecord]:
    """Episodes of every scene and arm of a run, arm after arm of each scene."""
    rng = np.random.default_rng(seed)
    scenes = [Scene(task.suite, task.task_id, state, seed=state)
              for task in run.design.tasks for state in task.states]  # fmt: skip
    luck = {scene: rng.uniform() for scene in scenes}  # the same scene is hard for every arm
    return [_record(run.design.arms, arm, scenes[i], luck[scenes[i]], rng)
            for i in rng.permutation(len(scenes)) for arm in run.design.arms]  # fmt: skip


def _record(
    arms: Sequence[ArmFacts], arm: ArmFacts, scene: Scene, luck: float, rng: np.random.Generator
) -> EpisodeRecord:
    loss = LOSS[arm.rate_requested] if arm.reference else 0.0
    is_success = luck + rng.normal(0, 0.01) < DENSE_SUCCESS - loss - arm.delay_ms / 1000
    steps = int(rng.integers(120, 180)) if is_success else 280
    rough = 1 + 2 * loss
    motion = {
        "path_m": float(rng.normal(1.1, 0.05) * rough),
        "jerk_m_s3": float(rng.normal(6, 0.5) * rough),
        "gripper_toggles": float(rng.integers(1, 4)),
        "seam_jump": float(rng.uniform(0.02, 0.05) * rough),
        "saturation": float(rng.uniform(0, 0.1)),
        "duration_s": steps / 20,
    }
    others = [other.name for other in arms if other.reference == arm.name]
    return EpisodeRecord(
        scene, arm.name, "success" if is_success else "failure", steps,
        wall_s=round(steps * 0.03, 3),
        latency_ms=tuple(float(v) for v in rng.gamma(40, 1.0, steps // 8)),
        actions_sha256=f"{rng.integers(2**62):064x}",
        layers={"cpu": 48} if arm.codec else {}, motion=motion,
        divergence={name: float(rng.uniform(0.01, 0.1)) for name in others},
    )  # fmt: skip


def write_run(folder: Path, run: Run, records: Sequence[EpisodeRecord]) -> Path:
    """A run folder without report."""
    folder.mkdir(parents=True)
    run_files.write_run(folder, run)
    write_episodes(folder / "episodes.jsonl", records)
    return folder


if __name__ == "__main__":
    made_up = make_run()
    write_run(Path(sys.argv[1]), made_up, make_records(made_up))
