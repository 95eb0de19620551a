"""Which code each matrix gets, so that the whole meets a rate."""

from einsort_vla.plan.allocation import (
    LEAST_BITS,
    MAX_RATE,
    Plan,
    allocate,
    check_rate,
    coarsest,
    describe_cores,
)
from einsort_vla.plan.candidates import Candidates, PlannedTensor, candidates_of, options, planned
from einsort_vla.plan.statistics import LayerStatistics, is_statistics

__all__ = [
    "LEAST_BITS",
    "MAX_RATE",
    "Candidates",
    "LayerStatistics",
    "Plan",
    "PlannedTensor",
    "allocate",
    "candidates_of",
    "check_rate",
    "coarsest",
    "describe_cores",
    "is_statistics",
    "options",
    "planned",
]
