"""Rate allocation: mix codes over matrices by least predicted distortion."""

import heapq
import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from einsort_vla.codec import DENSE_BITS, Codec, Dense, Lossless, spec_from_dict
from einsort_vla.errors import CheckpointError, ShapeError, UsageError
from einsort_vla.plan.candidates import Candidates, PlannedTensor, planned
from einsort_vla.reading import as_record
from einsort_vla.tensors import MAX_NAME

MAX_RATE = 0.95
# Of bits a weight, over all matrices: MAX_RATE leaves 0.8, of which coarse codes may use a part.
LEAST_BITS = 0.25
MOST_WEIGHTS = 2**44
MAX_DISTORTION = 1e6  # relative; an error as large as the matrix is 1
BY_SIZE = 0.2  # share of a matrix's importance that is its size even where actions do not move
# Without sensitivities, the smallest matrices (a VLA's projections of states and actions, which
# turned out to matter most) get six bits more: together they are this share of the weights at most.
SMALL_SHARE, SMALL_FACTOR = 0.0025, 4.0**6
FINER_BITS = 0.75  # above the mean, a matrix is listed with the reason


class _StoredTensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    spec: dict[str, Any]
    shape: tuple[Annotated[int, Meta(ge=1, le=2**31)], Annotated[int, Meta(ge=1, le=2**31)]]
    distortion: Annotated[float, Meta(ge=0, le=MAX_DISTORTION)]
    reason: Annotated[str, Meta(max_length=1024)] = ""


class _StoredPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    codec: Annotated[str, Meta(max_length=512)]
    rate_requested: Annotated[float, Meta(ge=0, le=MAX_RATE)]
    tensors: Annotated[
        dict[Annotated[str, Meta(min_length=1, max_length=MAX_NAME)], Any],
        Meta(min_length=1),
    ]


@dataclass(frozen=True)
class Plan:
    """Tensor name to code. All counts are over the compressible matrices only."""

    codec: Codec
    rate_requested: float
    tensors: Mapping[str, PlannedTensor]

    @cached_property  # asked for at every matrix, of which there may be many
    def n_weights(self) -> int:
        return sum(math.prod(t.shape) for t in self.tensors.values())

    @property
    def n_coded(self) -> int:
        """Weights that are not kept dense."""
        coded = (t for t in self.tensors.values() if not isinstance(t.spec, Dense))
        return sum(math.prod(t.shape) for t in coded)

    @cached_property
    def n_bits(self) -> int:
        return sum(t.bits for t in self.tensors.values())

    @property
    def bits_per_weight(self) -> float:
        return self.n_bits / self.n_weights

    @property
    def rate(self) -> float:
        """The achieved share of bf16 bytes removed; never below the requested one, unless that is
        0: matrices that bfloat16 cannot hold are then kept in float16 or float32."""
        return 1 - self.bits_per_weight / DENSE_BITS

    @property
    def distortion(self) -> float:
        """Predicted relative mean squared error, averaged over weights."""
        total = sum(t.distortion * math.prod(t.shape) for t in self.tensors.values())
        return total / self.n_weights

    @property
    def is_exact(self) -> bool:
        """Whether every matrix is decoded bit for bit."""
        return all(isinstance(t.spec, Dense | Lossless) for t in self.tensors.values())

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

    @property
    def order_bits_per_weight(self) -> dict[str, float]:
        """What stored orders cost by each way to store them; empty without networks."""
        total: Counter[str] = Counter()
        for t in self.tensors.values():
            total.update(t.spec.order_bits(t.shape))
        return {storage: bits / self.n_weights for storage, bits in total.items()}

    def as_dict(self) -> dict[str, Any]:
        tensors = {
            name: {
                "spec": t.spec.as_dict(),
                "shape": list(t.shape),
                "distortion": t.distortion,
                **({"reason": t.reason} if t.reason else {}),
            }
            for name, t in self.tensors.items()
        }
        return {"codec": str(self.codec), "rate_requested": self.rate_requested, "tensors": tensors}

    @classmethod
    def from_dict(
        cls, data: Any, source: str = "the plan", most_weights: int = MOST_WEIGHTS
    ) -> "Plan":
        """The inverse of `as_dict`, of data that anyone may have written; bits are computed again.

        Args:
            data: plain data, from JSON or YAML.
            source: what errors call it.
            most_weights: that there can be; a plan for more is refused before its bits are counted.

        Raises:
            CheckpointError: a field is missing, unknown, of another type or out of its bounds, a
                spec cannot exist, or it has less than `LEAST_BITS` a weight.
        """
        stored = as_record(data, _StoredPlan, source)
        entries = {
            name: as_record(entry, _StoredTensor, f"{source}: {name}")
            for name, entry in stored.tensors.items()
        }
        n_weights = sum(math.prod(entry.shape) for entry in entries.values())
        if n_weights > most_weights:
            raise CheckpointError(
                f"{source} is for {n_weights} weights; there can be {most_weights} at most."
            )
        try:
            codec = Codec.parse(stored.codec)
        except UsageError as error:
            raise CheckpointError(f"{source}: {error}") from error
        tensors = {name: _planned_from(e, f"{source}: {name}") for name, e in entries.items()}
        plan = cls(codec, stored.rate_requested, tensors)
        if plan.bits_per_weight < LEAST_BITS:
            raise CheckpointError(
                f"{source} has {plan.bits_per_weight:.3f} bits a weight; at least {LEAST_BITS} "
                "are needed, so that what is decoded has a size that the file explains."
            )
        return plan


def describe_cores(kept: float, order_bits_per_weight: Mapping[str, float]) -> str:
    """What tensor networks keep, as a sentence for people."""
    orders = ", ".join(f"{bits:.3f} as {name}" for name, bits in order_bits_per_weight.items())
    stored = f" Orders, in bits a weight: {orders}." if order_bits_per_weight else ""
    return f"Core numbers kept, as the EinSort paper counts: {kept:.4f}.{stored}"


def check_rate(rate: float) -> float:
    """The rate itself, if it can be one.

    Raises:
        UsageError: it is not a number in [0, 0.95].
    """
    if isinstance(rate, bool) or not isinstance(rate, int | float):  # as a config may have it
        raise UsageError(f"the rate must be a number from 0 to {MAX_RATE}; not {rate!r}.")
    if not 0 <= rate <= MAX_RATE:  # false for NaN too
        raise UsageError(
            f"--rate {rate} is outside [0, {MAX_RATE}]. It is the share of the linear weights' "
            "bytes to remove: 0 keeps all, 0.5 leaves 8 bits a weight, 0.9 leaves 1.6."
        )
    return rate


def allocate(
    candidates: Candidates, rate: float, sensitivities: Mapping[str, float] | None = None
) -> Plan:
    """Spend 16 (1 - rate) bits a weight where they remove most distortion.

    Rate 0 keeps every matrix as it is, whatever its type takes. Else each starts at its cheapest
    code; the upgrade that removes most error a bit is taken until the next one no longer fits.
    Upgrades come in one order whatever the rate, so that a lower rate never gives any matrix a
    worse code.

    Args:
        candidates: what each compressible matrix can be coded as.
        rate: share of their bf16 bytes to remove, everything stored counted.
        sensitivities: by matrix, error of the actions per unit of its relative error; a matrix
            without one, whose layer never ran, counts as the mean of the others does for its size.
            Without them the squared relative error is summed over weights, the smallest matrices
            apart.

    Raises:
        UsageError: the rate is no rate, or beyond what the candidates reach.
        CheckpointError: no matrix has a sensitivity.
    """
    check_rate(rate)
    if not candidates.tensors:
        raise UsageError("there is no compressible matrix: nothing to plan.")
    ladders = {name: _ladder(points) for name, points in candidates.tensors.items()}
    sizes = {name: math.prod(ladder[0].shape) for name, ladder in ladders.items()}
    importance = _importance(sizes, sensitivities)
    if rate == 0:
        return Plan(candidates.codec, rate, _as_they_are(candidates.tensors))
    budget = math.floor(DENSE_BITS * (1 - rate) * sum(sizes.values()))
    chosen = {name: ladder[0] for name, ladder in ladders.items()}
    spent = sum(code.bits for code in chosen.values())
    if spent > budget:
        raise _out_of_reach(coarsest(candidates), rate)
    for name, code, cost in _upgrades(ladders, importance):
        if spent + cost > budget:
            break
        spent += cost
        chosen[name] = code
    plan = Plan(candidates.codec, rate, _leave_dense(candidates, chosen, budget - spent))
    return _with_reasons(plan, importance)


def coarsest(candidates: Candidates) -> Plan:
    """The plan of fewest bits; its rate is the largest that is reached."""
    tensors = {name: _ladder(points)[0] for name, points in candidates.tensors.items()}
    return Plan(candidates.codec, 0.0, tensors)


def _out_of_reach(least: Plan, rate: float) -> UsageError:
    """The error for a rate above that of the coarsest plan."""
    message = (
        f"--codec {least.codec} reaches rate {math.floor(least.rate * 1e4) / 1e4} at most on "
        f"these layers (scales and padding counted); {rate} was asked for."
    )
    kept = {name: t for name, t in least.tensors.items() if isinstance(t.spec, Dense)}
    if kept:
        name, tensor = max(kept.items(), key=lambda item: item[1].bits)
        bits = tensor.bits // math.prod(tensor.shape)
        why = f": {tensor.reason}" if tensor.reason else ""
        message += (
            f" {len(kept)} of {len(least.tensors)} matrices stay dense, such as {name}, at "
            f"{bits} bits a weight{why}."
        )
    return UsageError(f"{message} Ask for less{', or keep fewer dense' * bool(kept)}.")


def _importance(
    sizes: Mapping[str, int], sensitivities: Mapping[str, float] | None
) -> dict[str, float]:
    """What a unit of relative error costs in each matrix, in weights."""
    if sensitivities is None:
        small = _smallest(sizes)
        return {n: size * (SMALL_FACTOR if n in small else 1.0) for n, size in sizes.items()}
    known = {name: sensitivities[name] for name in sizes if name in sensitivities}
    if not known:
        raise CheckpointError(
            f"the calibration has no sensitivity of {min(sizes)} or any other matrix: it was made "
            "for another policy."
        )
    mean = (sum(known.values()) or 1.0) / sum(sizes[name] for name in known)
    moved = {name: sensitivity / mean for name, sensitivity in known.items()}
    return {
        name: BY_SIZE * size + (1 - BY_SIZE) * moved.get(name, size) for name, size in sizes.items()
    }


def _smallest(sizes: Mapping[str, int]) -> set[str]:
    """The smallest matrices, as many as together hold SMALL_SHARE of all weights."""
    left, small = SMALL_SHARE * sum(sizes.values()), set()
    for name in sorted(sizes, key=lambda name: (sizes[name], name)):
        left -= sizes[name]
        if left < 0:
            break
        small.add(name)
    return small


def _upgrades(
    ladders: Mapping[str, list[PlannedTensor]], importance: Mapping[str, float]
) -> Iterator[tuple[str, PlannedTensor, int]]:
    """(name, next code, more bits) in the order of error removed a bit."""

    def upgrade(name: str, step: int) -> tuple[float, str, int]:
        low, high = ladders[name][step - 1 : step + 1]
        return -importance[name] * _gain(low, high), name, step

    waiting = [upgrade(name, 1) for name, ladder in ladders.items() if len(ladder) > 1]
    heapq.heapify(waiting)
    while waiting:
        _, name, step = heapq.heappop(waiting)
        ladder = ladders[name]
        yield name, ladder[step], ladder[step].bits - ladder[step - 1].bits
        if step + 1 < len(ladder):
            heapq.heappush(waiting, upgrade(name, step + 1))


def _with_reasons(plan: Plan, importance: Mapping[str, float]) -> Plan:
    """Say of each matrix with clearly more bits than the mean how important it is."""
    per_weight = {n: importance[n] / math.prod(t.shape) for n, t in plan.tensors.items()}
    usual = statistics.median(per_weight.values())
    tensors = {}
    for name, code in plan.tensors.items():
        is_finer = code.bits / math.prod(code.shape) > plan.bits_per_weight + FINER_BITS
        ratio = per_weight[name] / usual
        times = f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.1f}"
        reason = f"{times} times as important as usual for its size"
        has_own = is_finer and ratio > 1 and not code.reason
        tensors[name] = replace(code, reason=reason) if has_own else code
    return replace(plan, tensors=tensors)


def _as_they_are(tensors: Mapping[str, Sequence[PlannedTensor]]) -> dict[str, PlannedTensor]:
    """Each matrix uncoded; every codec offers that."""
    return {
        name: next(point for point in points if isinstance(point.spec, Dense))
        for name, points in tensors.items()
    }


def _leave_dense(
    candidates: Candidates, chosen: dict[str, PlannedTensor], budget: int
) -> dict[str, PlannedTensor]:
    """Spend what no code can use: matrices coded without error need not be coded at all."""
    exact = {name for name, code in chosen.items() if code.distortion == 0}
    dense = _as_they_are({name: candidates.tensors[name] for name in exact})
    cost = {name: dense[name].bits - chosen[name].bits for name in exact}
    result = dict(chosen)
    for name in sorted(exact, key=lambda name: (-cost[name], name)):
        if cost[name] <= budget:
            budget -= cost[name]
            result[name] = dense[name]
    return result


def _planned_from(entry: _StoredTensor, source: str) -> PlannedTensor:
    try:
        spec = spec_from_dict(entry.spec, source)
        code = planned(spec, entry.shape, entry.distortion)
    except (UsageError, ShapeError) as error:
        raise CheckpointError(f"{source}: {error}") from error
    return replace(code, reason=entry.reason)


def _ladder(points: Sequence[PlannedTensor]) -> list[PlannedTensor]:
    """The lower convex hull of (bits, distortion): only codes worth choosing, cheapest first."""
    hull: list[PlannedTensor] = []
    for point in sorted(points, key=lambda p: (p.bits, p.distortion)):
        if hull and point.distortion >= hull[-1].distortion:
            continue
        while len(hull) > 1 and _gain(hull[-2], hull[-1]) <= _gain(hull[-2], point):
            hull.pop()
        hull.append(point)
    return hull


def _gain(low: PlannedTensor, high: PlannedTensor) -> float:
    """Relative error removed for each bit spent."""
    return (low.distortion - high.distortion) / (high.bits - low.bits)
