"""How long a chunk of actions takes: in closed loop, and as `einsort-vla bench` timed it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from einsort_vla.results.arms import Code, undelayed
from einsort_vla.results.report import Percentiles
from einsort_vla.results.sources import Bench, Source
from einsort_vla.runtime import WHOLE_CHUNK


@dataclass(frozen=True)
class Timing:
    """Milliseconds of a chunk on one machine."""

    where: str
    code: Code | None  # None where it cannot be told what was timed
    source: str  # the run or the receipt
    ms: Percentiles | None
    parts: Mapping[str, float]  # median of each part that was timed by itself
    process_bytes: int | None = None
    power_w: float | None = None


def timings_of(loops: Sequence[Source], receipts: Sequence[Bench]) -> Iterator[Timing]:
    """Of every arm that was run, at the shortest delay of its run, then of every receipt."""
    for loop in loops:
        if not (loop.report and loop.report.closed_loop):
            continue
        found = loop.report.closed_loop.arms
        for arm in undelayed(loop.arms):
            if not arm.shares_episodes:
                where = f"closed loop, {loop.run.machine}"
                yield Timing(where, arm.code, loop.name, found[arm.name].latency_ms, {})
    for receipt in receipts:
        yield of_receipt(receipt, loops)


def of_receipt(bench: Bench, loops: Sequence[Source]) -> Timing:
    """What was timed on a device, and of which arm of these runs it is."""
    latency = bench.receipt.latency_ms
    return Timing(
        bench.device,
        next((code for loop in loops if (code := _timed_code(loop, bench))), None),
        bench.name,
        latency.get(WHOLE_CHUNK),
        parts={part: ms.p50 for part, ms in latency.items() if part != WHOLE_CHUNK},
        process_bytes=bench.receipt.process_bytes,
        power_w=bench.receipt.power_w,
    )


def _timed_code(loop: Source, bench: Bench) -> Code | None:
    """The arm whose weights a receipt says were timed; None if it is none of this run's."""
    for arm in loop.arms:
        kept = loop.weights_of(arm.code)
        if kept and kept == bench.source.weights_sha256:
            return arm.code
    return None
