"""A config class `Einsort<X>Config`, of type `einsort_<x>`, for every policy that is compressed."""

from dataclasses import dataclass

import lerobot.policies  # noqa: F401  registers the dense types
from lerobot.configs import PreTrainedConfig

from einsort_vla.checkpoint import FAMILIES, TYPE_PREFIX


def _register(dense_type: str) -> type[PreTrainedConfig]:
    dense = PreTrainedConfig.get_choice_class(dense_type)
    made = type(f"Einsort{dense.__name__}", (dense,), {"__module__": __name__})
    return PreTrainedConfig.register_subclass(TYPE_PREFIX + dense_type)(dataclass(made))


for _dense_type in FAMILIES:
    if _dense_type in PreTrainedConfig.get_known_choices():
        _made = _register(_dense_type)
        globals()[_made.__name__] = _made
