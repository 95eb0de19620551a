"""Plans that meet a size of the weight file, instead of a rate of its matrices."""

import math

from einsort_vla.checkpoint.folder import described, plan_candidates
from einsort_vla.checkpoint.source import DenseFolder
from einsort_vla.checkpoint.writer import file_bytes
from einsort_vla.codec import DENSE_BITS
from einsort_vla.errors import UsageError
from einsort_vla.plan import MAX_RATE, Candidates, LayerStatistics, Plan, coarsest

STEP = 1e-6  # of a rate; less is no difference in a file


def plan_to_fit(
    dense: DenseFolder,
    candidates: Candidates,
    rate: float | None,
    n_bytes: int | None,
    statistics: LayerStatistics | None = None,
) -> Plan:
    """The finest plan of a rate or of a size, of which one is given; see `plan_size`."""
    if n_bytes is not None:
        return plan_size(dense, candidates, n_bytes, statistics)
    assert rate is not None
    return plan_candidates(dense, candidates, rate, statistics)


def plan_size(
    dense: DenseFolder,
    candidates: Candidates,
    n_bytes: int,
    statistics: LayerStatistics | None = None,
) -> Plan:
    """The finest plan whose whole weight file, with all that is not coded, has at most `n_bytes`.

    Its rate is the one that led there.

    Args:
        dense: the policy.
        candidates: what its matrices can be coded as.
        n_bytes: of model.safetensors in the compressed folder.
        statistics: see `plan_folder`.

    Raises:
        CheckpointError: the statistics are another policy's.
        UsageError: no plan is that small; the message has the range.
    """

    def size(plan: Plan) -> int:
        return file_bytes(*described(dense, plan, statistics is not None))

    top = math.floor(min(coarsest(candidates).rate, MAX_RATE) / STEP) * STEP
    plan = plan_candidates(dense, candidates, 0.0, statistics)
    most = size(plan)
    while (over := size(plan) - n_bytes) > 0:
        if plan.rate_requested > top - STEP:
            raise UsageError(
                f"a file of {n_bytes} bytes is outside what --codec {candidates.codec} reaches on "
                f"this policy: {size(plan)} to {most}."
            )
        # A plan has at most the bits that its rate leaves; its header is as long as its names are.
        rate = 1 - (plan.n_bits - 8 * over) / (DENSE_BITS * plan.n_weights)
        rate = max(math.ceil(rate / STEP) * STEP, plan.rate_requested + STEP)
        plan = plan_candidates(dense, candidates, round(min(rate, top), 6), statistics)
    return plan
