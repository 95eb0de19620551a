"""The inputs and outputs that a policy's config.json names."""

import math
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from einsort_vla.errors import CheckpointError
from einsort_vla.reading import as_record
from einsort_vla.runtime.observation import needed_pictures

MAX_SIDE = 2**14  # pixels, or numbers of a state
MAX_NUMBERS = 2**25  # of one picture or state
MAX_FEATURES, MAX_TOGETHER = 32, 2**26  # and the numbers of all of them
MAX_EMPTY_CAMERAS = 64
_Side = Annotated[int, msgspec.Meta(ge=1, le=MAX_SIDE)]


class Feature(msgspec.Struct, frozen=True):
    """One input or output: LeRobot's type, such as VISUAL, and shape."""

    type: str
    shape: Annotated[tuple[_Side, ...], msgspec.Meta(max_length=4)]


def input_features(config: Mapping[str, Any]) -> dict[str, Feature]:
    """What a policy reads; empty if its config.json does not say.

    Raises:
        CheckpointError: the field holds something else.
    """
    return _features(config, "input_features")


def output_features(config: Mapping[str, Any]) -> dict[str, Feature]:
    """What it answers; see `input_features`."""
    return _features(config, "output_features")


def pictures_of(config: Mapping[str, Any]) -> list[str]:
    """The cameras that a policy must be shown, by its config.json.

    Raises:
        CheckpointError: a field of it holds something else.
    """
    own = [key for key, feature in input_features(config).items() if feature.type == "VISUAL"]
    n_empty = config.get("empty_cameras", 0)
    if not isinstance(n_empty, int) or not 0 <= n_empty <= MAX_EMPTY_CAMERAS:
        raise CheckpointError(
            f"config.json: empty_cameras is {n_empty!r}; it is a number up to {MAX_EMPTY_CAMERAS}."
        )
    return needed_pictures(own, n_empty)


def _features(config: Mapping[str, Any], field: str) -> dict[str, Feature]:
    found = as_record(config.get(field) or {}, dict[str, Feature], f"config.json: {field}")
    for key, feature in found.items():
        if math.prod(feature.shape) > MAX_NUMBERS:
            raise CheckpointError(
                f"config.json: {field}.{key} has the shape {list(feature.shape)}, more than "
                f"{MAX_NUMBERS} numbers."
            )
    together = sum(math.prod(feature.shape) for feature in found.values())
    if len(found) > MAX_FEATURES or together > MAX_TOGETHER:
        raise CheckpointError(
            f"config.json: {field} has {len(found)} entries of {together} numbers; {MAX_FEATURES} "
            f"of {MAX_TOGETHER} are the most."
        )
    return found
