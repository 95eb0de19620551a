"""Measures: numbers of every arm with their intervals, whatever an evaluation measured."""

from collections.abc import Mapping
from typing import Literal

from msgspec.structs import replace

from einsort_vla.results.record import Figure, Margin, Record

PairedAs = Literal["difference", "ratio"]


class Estimate(Record, frozen=True):
    """A number with its 95 % interval; None where none can be given."""

    value: Figure
    low: Figure | None
    high: Figure | None
    n: int  # what it was measured on: episodes, questions, tokens

    @classmethod
    def of(cls, value: float, interval: tuple[float, float] | None, n: int) -> "Estimate":
        return cls(value, *(interval or (None, None)), n)

    @property
    def interval(self) -> tuple[float, float] | None:
        return None if self.low is None or self.high is None else (self.low, self.high)


class Measure(Record, frozen=True):
    """One number of every arm, and how the compressed ones compare with the dense one."""

    name: str  # "success", "accuracy", "perplexity"
    better: Literal["higher", "lower"]
    counted: str  # what `n` counts: "episodes", "questions", "tokens"
    arms: Mapping[str, Estimate]
    paired: Mapping[str, Estimate]  # by compressed arm, on the same episodes, questions or tokens
    paired_as: PairedAs
    interval: str  # how the intervals were made, a sentence
    unit: str = ""  # "%" for shares that are shown in percent
    margin: Margin | None = None  # loss up to which an arm counts as not inferior
    errors: Mapping[str, int] = {}  # that count in no `n`, by arm

    def only(self, arms: tuple[str, ...]) -> "Measure":
        """The same of some arms."""
        kept = {
            key: {arm: value for arm, value in getattr(self, key).items() if arm in arms}
            for key in ("arms", "paired", "errors")
        }
        return replace(self, **kept)
