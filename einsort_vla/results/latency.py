"""How long a chunk of actions takes: in closed loop, and as `einsort-vla bench` timed it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from einsort_vla.results.sources import ClosedLoop, Code, Receipt, code_of
from einsort_vla.runtime import WHOLE_CHUNK


@dataclass(frozen=True)
class Timing:
    """Milliseconds of a chunk on one machine."""

    where: str
    code: Code | None  # None where it cannot be told what was timed
    source: str  # the run or the receipt
    p50: float | None
    p95: float | None
    p99: float | None
    n: int
    parts: Mapping[str, float]  # p50 of each part that was timed by itself
    process_bytes: int | None = None
    power_w: float | None = None


def timings_of(loops: Sequence[ClosedLoop], receipts: Sequence[Receipt]) -> Iterator[Timing]:
    """Of every arm that was run, at the shortest delay of its run, then of every receipt."""
    for loop in loops:
        ran = {name: arm for name, arm in loop.undelayed.items() if not arm["shares_episodes"]}
        for name, arm in ran.items():
            n = sum(len(record.policy_ms) for record in loop.records if record.arm == name)
            where = f"closed loop, {loop.run['machine']}"
            yield Timing(where, code_of(arm), loop.name, **arm["latency_ms"], n=n, parts={})
    for receipt in receipts:
        yield _of_receipt(receipt, loops)


def _of_receipt(receipt: Receipt, loops: Sequence[ClosedLoop]) -> Timing:
    latency = receipt.content["latency_ms"]
    whole = latency.get(WHOLE_CHUNK, {})
    return Timing(
        receipt.device,
        next((code for loop in loops if (code := _timed_code(loop, receipt))), None),
        receipt.name,
        *(whole.get(share) for share in ("p50", "p95", "p99")),
        n=whole.get("n", 0),
        parts={part: ms["p50"] for part, ms in latency.items() if part != WHOLE_CHUNK},
        process_bytes=receipt.content.get("process_bytes"),
        power_w=receipt.content.get("power_w"),
    )


def _timed_code(loop: ClosedLoop, receipt: Receipt) -> Code | None:
    """The arm whose weights a receipt says were timed; None if it is none of this run's."""
    for arm in loop.arms.values():
        kept = loop.weights_of(code_of(arm))
        if kept and kept == receipt.source.get("weights_sha256"):
            return code_of(arm)
    return None
