"""Episodes of an arm beside those of its reference in the same scenes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import bootstrap

from einsort_vla.results.episode import EpisodeRecord, Motion
from einsort_vla.results.statistics import N_RESAMPLES, Interval, PairCounts

RATIOS = ("path_m", "jerk_m_s3", "duration_s")
DIFFERENCES = ("gripper_toggles", "seam_jump", "saturation")


@dataclass(frozen=True)
class Pair:
    """One scene that both arms finished."""

    reference: EpisodeRecord
    arm: EpisodeRecord

    @property
    def difference(self) -> int:
        """1 if only the arm succeeded, -1 if only its reference did, else 0."""
        return self.arm.is_success - self.reference.is_success

    @property
    def task(self) -> tuple[str, int]:
        return self.arm.scene.suite, self.arm.scene.task_id


def match(records: Sequence[EpisodeRecord], reference: str, arm: str) -> list[Pair]:
    """Pairs in the order in which they became complete."""
    waiting: dict[Any, EpisodeRecord] = {}
    pairs = []
    for record in records:
        if record.arm not in (reference, arm) or record.outcome == "error":
            continue
        other = waiting.pop(record.scene, None)
        if other is None:
            waiting[record.scene] = record
        else:
            first, second = (other, record) if record.arm == arm else (record, other)
            pairs.append(Pair(first, second))
    return pairs


def count(pairs: Sequence[Pair]) -> PairCounts:
    """How often both, one or none of the two arms succeeded."""
    outcomes = [(pair.reference.is_success, pair.arm.is_success) for pair in pairs]
    return PairCounts(
        both=outcomes.count((True, True)),
        only_reference=outcomes.count((True, False)),
        only_arm=outcomes.count((False, True)),
        neither=outcomes.count((False, False)),
    )


def count_by_task(pairs: Sequence[Pair]) -> list[PairCounts]:
    """The same counts, one of each task."""
    tasks = dict.fromkeys(pair.task for pair in pairs)
    return [count([pair for pair in pairs if pair.task == task]) for task in tasks]


def compare_motion(pairs: Sequence[Pair]) -> dict[str, dict[str, Any]]:
    """How else the arm moved where both succeeded, with 95 % intervals over the pairs.

    Per metric `ratio` of the geometric means, or `difference` of the means of what can be 0, arm
    against reference; `interval95` is None for fewer than two pairs.
    """
    moved = [
        (pair.reference.motion, pair.arm.motion)
        for pair in pairs
        if pair.reference.is_success and pair.arm.is_success
        and pair.reference.motion and pair.arm.motion
    ]  # fmt: skip
    ratios = {metric: _compare(moved, metric, "ratio") for metric in RATIOS}
    return ratios | {metric: _compare(moved, metric, "difference") for metric in DIFFERENCES}


def _compare(moved: list[tuple[Motion, Motion]], metric: str, kind: str) -> dict[str, Any]:
    numbers = [[getattr(motion, metric) for motion in pair] for pair in moved]
    values = np.array(numbers, dtype=float).reshape(-1, 2)  # (n, reference and arm)
    back: Callable[[float], float] = float
    if kind == "ratio":
        values, back = np.log(values[(values > 0).all(axis=1)]), math.exp
    changes = values[:, 1] - values[:, 0]
    interval = _mean_interval(changes)
    return {
        kind: back(changes.mean()) if len(changes) else None,
        "interval95": interval and [back(bound) for bound in interval],
        "n": len(changes),
    }


def _mean_interval(values: np.ndarray) -> Interval | None:
    """Percentile bootstrap of a mean."""
    if len(values) < 2:
        return None
    found = bootstrap(
        (values,),
        np.mean,
        n_resamples=N_RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)
