"""Which tensors of a policy family are compressible linear weights, and why others are not."""

from collections.abc import Mapping
from fnmatch import fnmatchcase

from einsort_vla.errors import unknown_name

_LOOKUP = "a look-up table, not a linear layer"
_UNUSED = "not used in inference"

# Policy type to pattern of a tensor name that stays dense, with the reason.
DENSE_PATTERNS: Mapping[str, Mapping[str, str]] = {
    "smolvla": {
        "*lm_head*": _UNUSED,
        "*embed_tokens*": _LOOKUP,
        "*position_embedding*": _LOOKUP,
    },
}


def dense_reason(policy_type: str, name: str, shape: tuple[int, ...]) -> str | None:
    """Why a tensor is not compressible; None if it is.

    Raises:
        UsageError: the policy type has no entry here yet.
    """
    if policy_type not in DENSE_PATTERNS:
        raise unknown_name("policy type for compression", policy_type, DENSE_PATTERNS)
    if len(shape) != 2 or not name.endswith(".weight"):
        return "not a matrix of a linear layer"
    patterns = DENSE_PATTERNS[policy_type].items()
    return next((reason for pattern, reason in patterns if fnmatchcase(name, pattern)), None)
