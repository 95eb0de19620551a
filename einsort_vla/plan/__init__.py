"""Which code each matrix gets, so that the whole meets a rate."""

from einsort_vla.plan.allocation import (
    MAX_RATE,
    Plan,
    PlannedTensor,
    allocate,
    check_rate,
    describe_cores,
    options,
    planned,
)
from einsort_vla.plan.statistics import InputStatistics, is_statistics

__all__ = [
    "MAX_RATE",
    "InputStatistics",
    "Plan",
    "PlannedTensor",
    "allocate",
    "check_rate",
    "describe_cores",
    "is_statistics",
    "options",
    "planned",
]
