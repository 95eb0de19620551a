"""Which tensors of a policy family are compressible linear weights, and why others are not."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from einsort_vla.errors import unknown_name

_LOOKUP = "a look-up table, not a linear layer"
_UNUSED = "never used in inference"
_TRAINING = "the world model, which only training needs"
_EMBODIMENT = "one matrix for each embodiment, chosen at run time"
_NOT_LINEAR = "not a matrix of a linear layer"
_RAW = "nn.MultiheadAttention reads the raw weight"
_TABLES = {"*embed_tokens*": _LOOKUP, "*position_embedding*": _LOOKUP}


@dataclass(frozen=True)
class Family:
    """Patterns of tensor names, each with the reason.

    Attributes:
        dense: kept as they are.
        dropped: heads that inference never uses; not stored.
        tied: pattern of `dropped` to the name that must be stored beside it; without that name the
            head is the look-up table itself and stays.
        linear: if given, stored name to name in the model of the weights that are compressible.
    """

    dense: Mapping[str, str]
    dropped: Mapping[str, str] = field(default_factory=dict)
    tied: Mapping[str, str] = field(default_factory=dict)
    linear: Mapping[str, str] | None = None

    def dense_reason(self, name: str, shape: tuple[int, ...]) -> str | None:
        """Why a tensor is not compressible; None if it is."""
        if self.linear is not None:
            return None if name in self.linear else _NOT_LINEAR
        if name.endswith("in_proj_weight"):
            return _RAW
        if len(shape) == 3 and name.endswith(".W"):
            return _EMBODIMENT
        if len(shape) != 2 or not name.endswith(".weight"):
            return _NOT_LINEAR
        return _match(name, {**self.dense, **self.dropped})

    def dropped_reasons(self, names: Collection[str]) -> dict[str, str]:
        """The tensors of a checkpoint that need not be stored, with the reason."""
        patterns = {
            pattern: reason
            for pattern, reason in self.dropped.items()
            if pattern not in self.tied or any(fnmatchcase(n, self.tied[pattern]) for n in names)
        }
        found = {name: _match(name, patterns) for name in sorted(names)}
        return {name: reason for name, reason in found.items() if reason}


def _match(name: str, patterns: Mapping[str, str]) -> str | None:
    return next(
        (reason for pattern, reason in patterns.items() if fnmatchcase(name, pattern)), None
    )


_PALIGEMMA_HEAD = "*paligemma_with_expert.paligemma.lm_head.*"
_PI0 = Family(
    dense=_TABLES | {_PALIGEMMA_HEAD: "the look-up table, stored as the head tied to it"},
    dropped={_PALIGEMMA_HEAD: _UNUSED, "*gemma_expert.lm_head.*": _UNUSED},
    tied={_PALIGEMMA_HEAD: "*paligemma.model.language_model.embed_tokens.weight"},
)
FAMILIES: Mapping[str, Family] = {
    "smolvla": Family(dense=_TABLES, dropped={"*lm_head*": _UNUSED}),
    "pi0": _PI0,
    "pi05": _PI0,
    "pi0_fast": Family(dense=_TABLES | {"*lm_head*": "the head over the action tokens"}),
    "xvla": Family(
        dense=_TABLES
        | {"*embed*": _LOOKUP, "*shared.weight": _LOOKUP, "*pos_emb*": _LOOKUP,
           "*soft_prompt*": _LOOKUP, "*.fc.weight": _EMBODIMENT, "*.bias.weight": _EMBODIMENT}
    ),
    "groot": Family(dense=_TABLES | {"*pos_embed*": _LOOKUP, "*lm_head*": _UNUSED}),
    "eo1": Family(dense=_TABLES | {"*lm_head*": "the head over the vocabulary"}),
    "vla_jepa": Family(
        dense=_TABLES | {"*lm_head*": "the look-up table, stored as the head tied to it"}
        | {"*future_tokens*": _LOOKUP, "*pos_embed*": _LOOKUP},
        dropped={
            "*lm_head*": _UNUSED, "model.video_encoder.*": _TRAINING,
            "model.video_predictor.*": _TRAINING,
        },
        tied={"*lm_head*": "*embed_tokens.weight"},
    ),
    "act": Family(
        dense={
            "*vae_encoder*": _UNUSED,
            "*pos_embed*": _LOOKUP,
            "*attn.out_proj.*": _RAW,
        }
    ),
}  # fmt: skip
"""LeRobot policy types."""


def family_of(policy_type: str) -> Family:
    """The table of a LeRobot policy type.

    Raises:
        UsageError: there is none yet.
    """
    if policy_type not in FAMILIES:
        raise unknown_name("policy type for compression", policy_type, FAMILIES)
    return FAMILIES[policy_type]
