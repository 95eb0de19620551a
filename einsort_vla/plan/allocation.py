"""Rate allocation: mix codes over matrices by least predicted distortion."""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from einsort_vla.codec import DENSE_BITS, CodecSpec, Dense, Shape, choices, n_bits, spec_from_dict
from einsort_vla.errors import CheckpointError, UsageError

MAX_RATE = 0.95


@dataclass(frozen=True)
class PlannedTensor:
    """The code of one matrix, with what it will cost."""

    spec: CodecSpec
    shape: Shape
    bits: int
    distortion: float  # predicted relative mean squared error


@dataclass(frozen=True)
class Plan:
    """Tensor name to code. All counts are over the compressible matrices only."""

    form: str
    rate_requested: float
    tensors: Mapping[str, PlannedTensor]

    @property
    def n_weights(self) -> int:
        return sum(math.prod(t.shape) for t in self.tensors.values())

    @property
    def n_bits(self) -> int:
        return sum(t.bits for t in self.tensors.values())

    @property
    def bits_per_weight(self) -> float:
        return self.n_bits / self.n_weights

    @property
    def rate(self) -> float:
        """The achieved share of bf16 bytes removed; never below the requested one."""
        return 1 - self.bits_per_weight / DENSE_BITS

    @property
    def distortion(self) -> float:
        """Predicted relative mean squared error, averaged over weights."""
        total = sum(t.distortion * math.prod(t.shape) for t in self.tensors.values())
        return total / self.n_weights

    @property
    def core_kept_fraction(self) -> float | None:
        """Numbers in cores over weights, the rate of the EinSort paper; None without networks.

        Orders, signs and gauge rows are left out: this is no rate in our sense.
        """
        cores = [(t, t.spec.n_core_numbers(t.shape)) for t in self.tensors.values()]
        if all(numbers is None for _, numbers in cores):
            return None
        kept = [math.prod(t.shape) if numbers is None else numbers for t, numbers in cores]
        return sum(kept) / self.n_weights

    def as_dict(self) -> dict[str, Any]:
        tensors = {
            name: {
                "spec": t.spec.as_dict(),
                "shape": list(t.shape),
                "distortion": t.distortion,
            }
            for name, t in self.tensors.items()
        }
        return {"form": self.form, "rate_requested": self.rate_requested, "tensors": tensors}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Plan":
        """The inverse of `as_dict`; bits are computed again.

        Raises:
            CheckpointError: a key is missing or a spec cannot exist.
        """
        try:
            tensors = {
                name: planned(
                    spec_from_dict(entry["spec"]), tuple(entry["shape"]), entry["distortion"]
                )
                for name, entry in data["tensors"].items()
            }
            return cls(data["form"], data["rate_requested"], tensors)
        except (KeyError, TypeError, ValueError, UsageError) as error:
            raise CheckpointError(f"the compression plan cannot be read: {error}") from error


def check_rate(rate: float) -> float:
    """The rate itself, if it can be one.

    Raises:
        UsageError: it is not a number in [0, 0.95].
    """
    if not 0 <= rate <= MAX_RATE:  # false for NaN too
        raise UsageError(
            f"--rate {rate} is outside [0, {MAX_RATE}]. It is the share of the linear weights' "
            "bytes to remove: 0 keeps all, 0.5 leaves 8 bits a weight, 0.9 leaves 1.6."
        )
    return rate


def options(shape: Shape, form: str, weight: Tensor | None = None) -> list[PlannedTensor]:
    """What one matrix can be coded as, with the error expected of each code.

    Args:
        shape: (out_features, in_features).
        form: the codec form to choose from.
        weight: the matrix itself; without it, codes whose size depends on it are left out.

    Raises:
        UsageError: the form is unknown.
    """
    return [planned(spec, shape, error) for spec, error in choices(form, shape, weight)]


def allocate(candidates: Mapping[str, Sequence[PlannedTensor]], rate: float, form: str) -> Plan:
    """Spend 16 (1 - rate) bits a weight where they remove most distortion.

    Every matrix starts at its cheapest code; the upgrade that removes most squared relative error
    a bit is taken until the next one no longer fits. Upgrades come in one order whatever the rate,
    so that a lower rate never gives any matrix a worse code.

    Args:
        candidates: for each compressible matrix what it can be coded as, in any order.
        rate: share of their bf16 bytes to remove, everything stored counted.
        form: the codec form that they come from.

    Raises:
        UsageError: the rate is no rate, or beyond what the candidates reach.
    """
    check_rate(rate)
    if not candidates:
        raise UsageError("there is no compressible matrix: nothing to plan.")
    ladders = {name: _ladder(points) for name, points in candidates.items()}
    n_weights = sum(math.prod(ladder[0].shape) for ladder in ladders.values())
    budget = math.floor(DENSE_BITS * (1 - rate) * n_weights)
    chosen = {name: ladder[0] for name, ladder in ladders.items()}
    spent = sum(code.bits for code in chosen.values())
    if spent > budget:
        reach = Plan(form, rate, chosen).rate
        raise UsageError(
            f"--codec {form} reaches rate {math.floor(reach * 1e4) / 1e4} at most on these layers "
            f"(scales and padding counted); {rate} was asked for."
        )
    upgrades = [_upgrade(name, ladder, 1) for name, ladder in ladders.items() if len(ladder) > 1]
    heapq.heapify(upgrades)
    while upgrades:
        _, name, step = heapq.heappop(upgrades)
        ladder = ladders[name]
        cost = ladder[step].bits - ladder[step - 1].bits
        if spent + cost > budget:
            break
        spent += cost
        chosen[name] = ladder[step]
        if step + 1 < len(ladder):
            heapq.heappush(upgrades, _upgrade(name, ladder, step + 1))
    return Plan(form, rate, _leave_dense(chosen, budget - spent))


def _leave_dense(chosen: dict[str, PlannedTensor], budget: int) -> dict[str, PlannedTensor]:
    """Spend what no code can use: matrices coded without error need not be coded at all."""
    result = dict(chosen)
    dense = {name: planned(Dense(), code.shape, 0.0) for name, code in chosen.items()}
    cost = {name: dense[name].bits - chosen[name].bits for name in chosen}
    for name in sorted(chosen, key=lambda name: (-cost[name], name)):
        if chosen[name].distortion == 0 and cost[name] <= budget:
            budget -= cost[name]
            result[name] = dense[name]
    return result


def planned(spec: CodecSpec, shape: Shape, distortion: float) -> PlannedTensor:
    """One matrix's code with its bits."""
    return PlannedTensor(spec, shape, n_bits(spec, shape), distortion)


def _ladder(points: Sequence[PlannedTensor]) -> list[PlannedTensor]:
    """The lower convex hull of (bits, distortion): only codes worth choosing, cheapest first."""
    hull: list[PlannedTensor] = []
    for point in sorted(points, key=lambda p: p.bits):
        if hull and point.distortion >= hull[-1].distortion:
            continue
        while len(hull) > 1 and _gain(hull[-2], hull[-1]) <= _gain(hull[-2], point):
            hull.pop()
        hull.append(point)
    return hull


def _gain(low: PlannedTensor, high: PlannedTensor) -> float:
    """Relative error removed for each bit a weight spent."""
    return (low.distortion - high.distortion) * math.prod(low.shape) / (high.bits - low.bits)


def _upgrade(name: str, ladder: list[PlannedTensor], step: int) -> tuple[float, str, int]:
    return -_gain(ladder[step - 1], ladder[step]), name, step
