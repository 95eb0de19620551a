"""How the graphs of a policy are traced."""

from dataclasses import dataclass

MAX_BATCH = 64


@dataclass(frozen=True)
class GraphOptions:
    """How graphs are traced.

    Attributes:
        batch: observations at once; the most, if `dynamic_batch`.
        dynamic_batch: take any batch up to it.
        precision: what engines compute in; None is the family's own.
    """

    batch: int = 1
    dynamic_batch: bool = False
    precision: str | None = None
