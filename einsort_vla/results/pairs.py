"""Episodes of an arm beside those of its reference in the same scenes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from einsort_vla.results.episode import EpisodeRecord
from einsort_vla.results.measures import Estimate
from einsort_vla.results.motion import METRICS, Metric, Motion
from einsort_vla.results.record import LARGEST
from einsort_vla.results.statistics import PairCounts, bootstrap_interval


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
    def acted_alike(self) -> bool:
        """Whether both did the same to the last bit."""
        digest = self.arm.actions_sha256
        return bool(digest) and digest == self.reference.actions_sha256

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


def compare_motion(pairs: Sequence[Pair]) -> dict[str, Estimate]:
    """How else the arm moved where both succeeded, with 95 % intervals over the pairs.

    By metric the ratio of the geometric means, or the difference of the means of what can be 0, arm
    against reference; without an interval for fewer than two pairs, or where all changes are alike.
    A metric that no pair has, or that is too large for a number, is left out.
    """
    moved = [
        (pair.reference.motion, pair.arm.motion)
        for pair in pairs
        if pair.reference.is_success and pair.arm.is_success
        and pair.reference.motion and pair.arm.motion
    ]  # fmt: skip
    found = {key: _compare(moved, metric) for key, metric in METRICS.items()}
    return {key: estimate for key, estimate in found.items() if estimate}


def _compare(moved: Sequence[tuple[Motion, Motion]], metric: Metric) -> Estimate | None:
    key = metric.key
    numbers = [[motion[key] for motion in pair] for pair in moved if all(key in m for m in pair)]
    values = np.array(numbers, dtype=float).reshape(-1, 2)  # (n, reference and arm)
    back: Callable[[float], float] = float
    if metric.compared == "ratio":
        values, back = np.log(values[(values > 0).all(axis=1)]), math.exp
    changes = values[:, 1] - values[:, 0]
    if not len(changes):
        return None
    bounds = bootstrap_interval((changes,))
    if metric.compared == "ratio" and max([changes.mean(), *(bounds or ())]) > math.log(LARGEST):
        return None
    interval = (back(bounds[0]), back(bounds[1])) if bounds else None
    return Estimate.of(back(changes.mean()), interval, len(changes))
