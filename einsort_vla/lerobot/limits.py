"""What the JSON of a policy folder may ask of LeRobot and Transformers.

Numbers that set how many layers, steps, tokens or pixels there are have bounds, far above those of
any policy there is: beyond them a look at the policy would take all time or memory.
"""

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from einsort_vla.errors import CheckpointError
from einsort_vla.families import MAX_SIDE

MAX_DEPTH = 16  # of nesting
_LIMITS: tuple[tuple[str, int], ...] = (
    ("*layers*", 1024), ("*depth*", 1024), ("*blocks*", 1024), ("*heads*", 4096),
    ("empty_cameras", 64), ("num_image_views", 64), ("n_obs_steps", 256),
    ("n_action_steps", 2**14), ("*chunk_size*", 2**14), ("*horizon*", 2**14),
    ("num_steps", 1024), ("num_*inference*", 1024), ("num_denois*", 1024),
    ("*max_decoding_steps*", 2**14), ("*max_length*", 2**16), ("*max*_tokens*", 2**16),
    ("max_*_dim", MAX_SIDE), ("*resolution*", MAX_SIDE), ("*image_size*", MAX_SIDE),
    ("resize_*", MAX_SIDE), ("*_size", 2**26), ("*_dim", 2**26), ("shape", 2**26),
    ("*_pixels", 2**26), ("*max_position_embeddings", 2**26),
)  # fmt: skip
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
    _check(content, source, "", None, 0)


def _check(value: Any, source: str, place: str, limit: int | None, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise CheckpointError(f"{source} is damaged: it is nested too deeply at {place}.")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            inside = f"{place}.{key}" if place else str(key)
            _check_attention(str(key), inner, source, inside)
            _check(inner, source, inside, _limit_of(str(key)), depth + 1)
    elif isinstance(value, list | tuple):
        for k, inner in enumerate(value):
            _check(inner, source, f"{place}[{k}]", limit, depth + 1)
    elif limit is not None and isinstance(value, int | float) and not abs(value) <= limit:
        raise CheckpointError(f"{source} is damaged: {place} is {value}; the most is {limit}.")


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
