"""A config class `Einsort<X>Config`, of type `einsort_<x>`, for every family of policies."""

from dataclasses import dataclass
from typing import Any

import lerobot.policies  # noqa: F401  registers the dense types
from lerobot.configs import PreTrainedConfig

from einsort_vla.errors import CheckpointError
from einsort_vla.families import FAMILIES, TYPE_PREFIX


def register(dense_type: str) -> None:
    """Let LeRobot know the compressed policies of one of its types."""
    dense = PreTrainedConfig.get_choice_class(dense_type)

    def check(config: Any) -> None:
        if config.use_peft:  # the first time that LeRobot calls us: later it loads the adapter
            raise CheckpointError(
                "config.json says use_peft: LeRobot would load another policy, which the adapter "
                "names. Merge the adapter into its policy before it is compressed."
            )
        dense.__post_init__(config)

    own = {"__module__": __name__, "__post_init__": check}
    made = type(f"Einsort{dense.__name__}", (dense,), own)
    PreTrainedConfig.register_subclass(TYPE_PREFIX + dense_type)(dataclass(made))
    globals()[made.__name__] = made


for _dense_type in FAMILIES:
    if _dense_type in PreTrainedConfig.get_known_choices():
        register(_dense_type)
