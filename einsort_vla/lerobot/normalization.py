"""The statistics by which a policy's processors normalize: there, numbers, and of the right size.

What lacks statistics LeRobot passes on as it is, without a word, so that the policy sees or gives
other units than it was trained in.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from einsort_vla.errors import CheckpointError
from einsort_vla.families import Feature
from einsort_vla.runtime.observation import is_picture

NEEDED = {
    "MEAN_STD": ("mean", "std"),
    "MIN_MAX": ("min", "max"),
    "QUANTILES": ("q01", "q99"),
    "QUANTILE10": ("q10", "q90"),
}
"""What each of LeRobot's modes computes with."""
FIGURES = frozenset(figure for needed in NEEDED.values() for figure in needed)
MAX_LARGER = 4  # times, that an input may get by its statistics: a grey picture gets colours


def check_stored(
    state: Mapping[str, torch.Tensor], source: str, features: Mapping[str, Feature]
) -> None:
    """Refuse statistics that are no numbers, or make far more of an input than it is.

    Args:
        state: of one step, by name: `action.mean`.
        source: the file, for errors.
        features: of the policy, inputs and outputs.

    Raises:
        CheckpointError: the message names the statistic.
    """
    for name, tensor in state.items():
        key, _, figure = name.rpartition(".")
        if figure in FIGURES and not tensor.is_floating_point():
            raise CheckpointError(f"{source}: {name} has the type {tensor.dtype}; it is no number.")
        if (feature := features.get(key)) is None:
            continue
        try:
            made = torch.broadcast_shapes(tensor.shape, (1, *feature.shape))
        except RuntimeError:
            continue  # LeRobot cannot use them either
        if math.prod(made) > MAX_LARGER * math.prod(feature.shape):
            raise CheckpointError(
                f"{source}: {name} has the shape {tuple(tensor.shape)}; it does not belong to "
                f"an input of shape {feature.shape}."
            )


def check_step(folder: Path, step: Any) -> None:
    """Refuse a loaded step that lacks what it normalizes by, or has one figure for many numbers.

    Torch would spread one figure over all of them.

    Raises:
        CheckpointError: the message names statistic and input.
    """
    modes, features = getattr(step, "norm_map", None), getattr(step, "features", None)
    if not modes or not features:
        return
    stored = step.state_dict()
    for key, feature in features.items():
        mode = str(getattr(modes.get(feature.type), "value", None))
        for figure in NEEDED.get(mode, ()):
            value, n_numbers = stored.get(f"{key}.{figure}"), math.prod(feature.shape)
            if value is None:
                raise CheckpointError(
                    f"{folder}: the processors lack the {figure} of {key}, by which they normalize "
                    f"it ({mode}). Write the statistics of the training data into the dense policy."
                )
            if not is_picture(key) and value.numel() == 1 < n_numbers:
                raise CheckpointError(
                    f"{folder}: the processors have one {figure} of {key}, which has {n_numbers} "
                    "numbers. Write the statistics of the training data into the dense policy."
                )
