"""What is known of each kind of policy: one module a family, and the registry of them.

A new family is one module here, and its name below. LeRobot and Transformers are imported when a
policy is built.
"""

from typing import Any

from einsort_vla.errors import UsageError, did_you_mean
from einsort_vla.families.act import ACT
from einsort_vla.families.building import (
    CODE_OF_LEROBOT,
    without_base_models,
    without_foreign_code,
)
from einsort_vla.families.eo1 import EO1
from einsort_vla.families.family import (
    BACKBONE_FOLDER,
    NOT_LINEAR,
    PRECISIONS,
    TYPE_PREFIX,
    Export,
    Family,
    Part,
    Prefix,
)
from einsort_vla.families.features import (
    MAX_SIDE,
    Feature,
    input_features,
    output_features,
    pictures_of,
)
from einsort_vla.families.groot import GROOT
from einsort_vla.families.pi0 import PI0
from einsort_vla.families.pi0_fast import PI0_FAST
from einsort_vla.families.pi05 import PI05
from einsort_vla.families.smolvla import SMOLVLA
from einsort_vla.families.vla_jepa import VLA_JEPA
from einsort_vla.families.xvla import XVLA

__all__ = [
    "BACKBONE_FOLDER",
    "CODE_OF_LEROBOT",
    "FAMILIES",
    "MAX_SIDE",
    "NOT_LINEAR",
    "PRECISIONS",
    "TYPE_PREFIX",
    "Export",
    "Family",
    "Feature",
    "Part",
    "Prefix",
    "export_of",
    "family_of",
    "input_features",
    "output_features",
    "pictures_of",
    "prefix_of",
    "without_base_models",
    "without_foreign_code",
]

_ALL = (SMOLVLA, PI0, PI05, PI0_FAST, XVLA, GROOT, EO1, VLA_JEPA, ACT)
FAMILIES: dict[str, Family] = {family.name: family for family in _ALL}
"""By LeRobot's policy type."""


def family_of(policy_type: str) -> Family:
    """The family of a policy type (`type` of config.json), dense or compressed.

    Raises:
        UsageError: there is none.
    """
    name = policy_type.removeprefix(TYPE_PREFIX)
    if name not in FAMILIES:
        hint = did_you_mean(name, FAMILIES)
        raise UsageError(
            f"policies of type {name!r} are not compressed; those of {', '.join(FAMILIES)} "
            f"are.{hint}"
        )
    return FAMILIES[name]


def export_of(policy_type: str) -> Export:
    """How policies of a type are exported.

    Raises:
        UsageError: they are not.
    """
    return _optional(policy_type, "export", "are not exported", "are")


def prefix_of(policy_type: str) -> Prefix:
    """Where policies of a type read their prefix.

    Raises:
        UsageError: they keep none.
    """
    return _optional(policy_type, "prefix", "keep no prefix", "do")


def _optional(policy_type: str, attribute: str, lack: str, have: str) -> Any:
    name = policy_type.removeprefix(TYPE_PREFIX)
    able = {own: found for own, family in FAMILIES.items() if (found := getattr(family, attribute))}
    if name not in able:
        raise UsageError(f"policies of type {name!r} {lack}; those of {', '.join(able)} {have}.")
    return able[name]
