"""What the JSON of a folder may ask of LeRobot and Transformers.

Numbers that set how many layers, steps, tokens or pixels there are have bounds, far above those of
any policy there is: beyond them a look at the policy would take all time or memory.
"""

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from einsort_vla.errors import CheckpointError
from einsort_vla.families import MAX_SIDE

MAX_DEPTH = 16  # of nesting
_LIMITS: tuple[tuple[str, int], ...] = (
    ("*layers*", 1024), ("*depth*", 1024), ("*blocks*", 1024), ("*heads*", 4096),
    ("empty_cameras", 64), ("num_image_views", 64), ("n_obs_steps", 256),
    ("n_action_steps", 2**10), ("*chunk_size*", 2**10), ("*horizon*", 2**10),
    ("num_steps", 1024), ("num_*inference*", 1024), ("num_denois*", 1024),
    ("*max_decoding_steps*", 2**14), ("*max_length*", 2**12), ("*max*_tokens*", 2**16),
    ("max_*_dim", MAX_SIDE), ("*resolution*", 1024), ("resize_*", 1024),
    ("*image_size*", MAX_SIDE), ("*crop*", 4096), ("prefix_length", 2**12), ("*_size", 2**26),
    ("*_dim", 2**26), ("shape", 2**26), ("*_pixels", 2**26), ("*max_position_embeddings", 2**26),
)  # fmt: skip
_AT_LEAST_ONE = (
    "chunk_size", "n_action_steps", "num_steps", "num_*inference*", "num_denois*", "*max_length*",
)  # fmt: skip
_NUMBERS = ("num_*", "n_*", "chunk_size")  # for which a switch cannot stand
_OF_ALL_INSIDE = ("*crop*",)  # whose numbers stand under the names of cameras
MAX_VALUES = 2**16  # in one file, or in one step of a processor
_HUB_KERNEL = re.compile(r"[^a-z0-9_]")  # Transformers takes `owner/name` for code on the hub


def check_asked(content: Any, source: str) -> None:
    """Refuse what no policy needs.

    Args:
        content: plain data of a JSON file.
        source: what errors call it.

    Raises:
        CheckpointError: a number is beyond its bound, code on the hub stands for attention, or it
            is nested too deeply; the message names the field.
    """
    if _n_values(content) > MAX_VALUES:
        raise CheckpointError(f"{source} holds more than {MAX_VALUES} values; no policy does.")
    _check(content, source, "", None, 0)


def _n_values(content: Any) -> int:
    """How many there are in plain data; what is nested too deeply is not counted."""
    n, layer = 0, [content]
    for _ in range(MAX_DEPTH + 1):
        inner = (own.values() if isinstance(own, Mapping) else own for own in layer)
        values = [each for group in inner for each in group]
        n, layer = n + len(values), [v for v in values if isinstance(v, Mapping | list | tuple)]
    return n


def _check(value: Any, source: str, place: str, limit: int | None, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise CheckpointError(f"{source} is damaged: it is nested too deeply at {place}.")
    if isinstance(value, Mapping):
        if not _fits(place.rpartition(".")[2], _OF_ALL_INSIDE):
            limit = None
        for key, inner in value.items():
            inside = f"{place}.{key}" if place else str(key)
            _check_attention(str(key), inner, source, inside)
            _check(inner, source, inside, _limit_of(str(key)) or limit, depth + 1)
    elif isinstance(value, list | tuple):
        for k, inner in enumerate(value):
            _check(inner, source, f"{place}[{k}]", limit, depth + 1)
    elif isinstance(value, bool):
        if _fits(place.rpartition(".")[2], _NUMBERS):
            raise CheckpointError(f"{source} is damaged: {place} is {value}, not a number.")
    elif limit is not None:
        _check_number(value, source, place, limit)


def _check_number(value: Any, source: str, place: str, limit: int) -> None:
    """A text counts as the number that LeRobot would read in it."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return
    least = 1 if _fits(place.rpartition(".")[2], _AT_LEAST_ONE) else -limit
    if not least <= number <= limit:
        raise CheckpointError(
            f"{source} is damaged: {place} is {value}, not a number from {least} to {limit}."
        )


def _fits(key: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def _limit_of(key: str) -> int | None:
    return next((limit for pattern, limit in _LIMITS if fnmatchcase(key, pattern)), None)


def _check_attention(key: str, value: Any, source: str, place: str) -> None:
    if not key.endswith(("attn_implementation", "experts_implementation")):
        return
    names = value.values() if isinstance(value, Mapping) else [value]
    for name in names:
        if isinstance(name, str) and _HUB_KERNEL.search(name):
            raise CheckpointError(
                f"{source}: {place} names code on the hub, {name!r}, which is not run. Take it out."
            )
