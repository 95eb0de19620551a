"""X-VLA: Florence-2 as the backbone, and soft prompts for each embodiment."""

import importlib
from typing import Any

from einsort_vla.families.family import EMBODIMENT, LOOKUP, TABLES, Family


def _rename(stored: dict[str, Any]) -> dict[str, Any]:
    """The first files have the layout of Microsoft's Florence-2 code, which LeRobot maps.

    A projection that is no linear layer there is transposed.
    """
    module = importlib.import_module("lerobot.policies.xvla.modeling_xvla")
    if module._is_vendored_florence_state_dict(stored):
        return module._remap_vendored_florence_state_dict(stored)
    return stored


XVLA = Family(
    "xvla",
    dense={
        **TABLES,
        "*embed*": LOOKUP,
        "*shared.weight": LOOKUP,
        "*pos_emb*": LOOKUP,
        "*soft_prompt*": LOOKUP,
        "*.fc.weight": EMBODIMENT,
        "*.bias.weight": EMBODIMENT,
    },
    rename=_rename,
)
