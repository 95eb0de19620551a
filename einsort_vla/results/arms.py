"""Arms: what an evaluation says of each policy or model that it compares."""

from collections.abc import Iterable, Mapping
from typing import Annotated, NamedTuple

from msgspec import Meta

from einsort_vla.results.record import Amount, Count, Figure, Name, Record, Share

DENSE_BITS = 16.0  # a weight, in bfloat16


class Code(NamedTuple):
    """Codec and requested rate: by these an arm is the same one in all runs."""

    codec: str | None = None
    rate: float = 0.0

    def __str__(self) -> str:
        """`dense`, or `curve 0.5`."""
        return f"{self.codec} {self.rate:g}" if self.codec else "dense"


DENSE = Code()


class ArmFacts(Record, frozen=True, kw_only=True):
    """One policy or model at one delay, dense or compressed."""

    name: Name  # in all results
    codec: str | None = None  # its canonical text; None of the dense arm
    rate_requested: Share = 0.0
    rate_achieved: Figure | None = None  # None of the dense arm
    bits_per_weight: Annotated[float, Meta(gt=0, le=64)] = DENSE_BITS
    core_kept_fraction: Share | None = None  # what the EinSort paper counts, where it applies
    order_bits_per_weight: Mapping[str, Amount] = {}
    weight_bytes: Count | None = None  # of this arm's weight files; None until they are made
    reference: str | None = None  # the dense arm it is compared with
    delay_ms: Annotated[float, Meta(ge=0)] = 0.0  # imposed on each answer of the policy
    shares_episodes: bool = False  # its weights are the reference's bit for bit: it is not run

    @property
    def code(self) -> Code:
        return Code(self.codec, self.rate_requested)


def undelayed(arms: Iterable[ArmFacts]) -> list[ArmFacts]:
    """Arms with the shortest delay that was tried."""
    arms = list(arms)
    shortest = min((arm.delay_ms for arm in arms), default=0)
    return [arm for arm in arms if arm.delay_ms == shortest]
