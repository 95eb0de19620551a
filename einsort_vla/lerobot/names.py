"""Stored names against a policy's own: public checkpoints were written by other tools."""

import importlib
from collections.abc import Mapping
from typing import Any


def in_policy[T](policy: Any, stored: Mapping[str, T]) -> dict[str, T]:
    """What a file holds, by the names that LeRobot's policy has for it.

    openpi's files (pi0) lack the prefix `model.`; X-VLA's first ones have the layout of Microsoft's
    Florence-2 code, which LeRobot maps (a projection that is no linear layer there is transposed).

    Args:
        policy: a LeRobot policy.
        stored: by stored name: tensors, or anything else.
    """
    found = dict(stored)
    if hasattr(policy, "model") and not any(name.startswith("model.") for name in found):
        found = {f"model.{name}": value for name, value in found.items()}
    if policy.config.type.endswith("xvla"):
        xvla = importlib.import_module("lerobot.policies.xvla.modeling_xvla")
        if xvla._is_vendored_florence_state_dict(found):
            found = xvla._remap_vendored_florence_state_dict(found)
    return found
