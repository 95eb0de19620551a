"""Which codes reach a rate for the keys and values of a block."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from einsort_vla.cache.block import Axes, BlockCode, Size
from einsort_vla.codec import DENSE_BITS, Codec, CodecSpec, Curve, Network, Scalar
from einsort_vla.errors import UsageError, unknown_name
from einsort_vla.plan import MAX_RATE

FORMS = ("curve", "network", "scalar")
# Rotated, the entries of a token are nearly Gaussian, as the codes expect. Keys have channels of
# a size and offset of their own, values have not (Liu et al. 2024, KIVI, arXiv:2402.02750).
_DEFAULTS = {
    "curve": {"window": 10},  # a prefix is coded while a robot waits
    "scalar": {"grid": "asymmetric", "group": 64},
}
_AXES: dict[str, tuple[Axes, Axes]] = {
    "curve": ("channel", "joint"),
    "scalar": ("channel", "token"),
}
_N_FIRST, _FROM_TOKENS = 1, 16  # in fewer, a token coded apart would cost more than it brings
MANY_TOKENS = 1024  # what cannot be coded in so many cannot be coded in more
# Measured on SmolLM2-135M: of errors of equal share, that of the keys costs so much more.
_KEY_WEIGHT = 1.5


def check_rate(rate: float) -> float:
    """The rate itself, if there can be such a one.

    Raises:
        UsageError: it is outside [0, MAX_RATE].
    """
    is_number = isinstance(rate, int | float) and not isinstance(rate, bool)
    if not is_number or not 0 <= rate <= MAX_RATE:
        raise UsageError(f"the rate of a cache is between 0 and {MAX_RATE}, not {rate!r}.")
    return rate


def cache_codec(codec: str | CodecSpec) -> Codec | Network:
    """The codec that a text names, with a cache's own defaults, or the network itself.

    Args:
        codec: a form with options of its menu, as for weights (`scalar group=32`), or a `Network`
            whose options are meant; its rank follows from the rate.

    Raises:
        UsageError: the form or an option is unknown, or of no use for a cache.
    """
    if isinstance(codec, CodecSpec):
        if isinstance(codec, Network):
            return codec
        raise UsageError(f"a spec given to a cache is a Network; for {codec.form} name the form.")
    if not isinstance(codec, str):
        raise UsageError(f"the codec of a cache is a text such as 'curve', not {codec!r}.")
    form = next(iter(codec.split()), "")
    if form not in FORMS:
        raise unknown_name("codec of a cache", form, FORMS)
    parsed = Codec.parse(codec).with_defaults(**_DEFAULTS.get(form, {}))
    if form == Network.form and parsed.named:
        raise UsageError("give a network with options as a spec: Network(1, reduction='mean').")
    return parsed


@lru_cache(maxsize=256)
def choose(codec: Codec | Network, rate: float, size: Size) -> tuple[BlockCode, BlockCode]:
    """Codes of the keys and of the values of a block.

    Of all but `network`, those of least expected error whose bits, with everything counted,
    are at most a share 1 - rate of bfloat16's. Of `network`, the largest rank whose cores alone
    are: the rate of the EinSort paper.

    Args:
        codec: see `cache_codec`.
        rate: share that is removed, above 0.
        size: (heads, tokens, head_dim) of the block.

    Raises:
        UsageError: no code is that small.
    """
    if isinstance(codec, Network) or codec.form == Network.form:
        template = codec if isinstance(codec, Network) else Network(1)
        code = BlockCode(_largest_rank(replace(template, slices=size[0]), rate, size), "token")
        return code, code
    return _least_error(codec, rate, size)


@lru_cache(maxsize=4096)  # each step asks for each layer
def code_of(codec: Codec | Network, rate: float, size: Size) -> tuple[BlockCode, BlockCode] | None:
    """As `choose`, or None for a block that is too short for any code of that rate.

    Raises:
        UsageError: no code is that small, however many tokens there are.
    """
    try:
        return choose(codec, rate, size)
    except UsageError:
        choose(codec, rate, (size[0], max(size[1], MANY_TOKENS), size[2]))
        return None


def _least_error(codec: Codec, rate: float, size: Size) -> tuple[BlockCode, BlockCode]:
    form, specs = codec.form, codec.menu()
    numbers = 2 * math.prod(size)
    budget = (1 - rate) * DENSE_BITS * numbers
    least = math.inf
    for n_first in (_N_FIRST, 0) if size[1] >= _FROM_TOKENS else (0,):
        bits = {pair: sum(c.n_bits(size) for c in pair) for pair in _pairs(form, specs, n_first)}
        fitting = [pair for pair, own in bits.items() if own <= budget]
        if fitting:
            return min(fitting, key=lambda pair: _expected_error(pair, size))
        least = min(least, *bits.values())
    raise UsageError(
        f"{codec} takes at least {least / numbers:.2f} bits an entry for {size[1]} tokens of "
        f"{size[0]} heads of {size[2]}, a rate of {1 - least / numbers / DENSE_BITS:.3f}; "
        f"{rate:g} was asked for."
    )


def _pairs(
    form: str, specs: Sequence[CodecSpec], n_first: int
) -> list[tuple[BlockCode, BlockCode]]:
    """Every code of the keys with every one of the values."""
    key_axes, value_axes = _AXES[form]
    own = [spec for spec in specs if isinstance(spec, Curve | Scalar)]
    # Over channels' tokens there is nothing to rotate.
    of_keys = [s if isinstance(s, Scalar) else replace(s, rotated=False) for s in own]
    keys = [BlockCode(spec, key_axes, n_first, form != "scalar") for spec in of_keys]
    return [(key, BlockCode(spec, value_axes, n_first)) for key in keys for spec in own]


def _expected_error(pair: tuple[BlockCode, BlockCode], size: Size) -> float:
    key, value = (code.spec.predicted_distortion(code.shape(size)[1]) for code in pair)
    return _KEY_WEIGHT * key + value


def _largest_rank(template: Network, rate: float, size: Size) -> Network:
    """The network of the largest rank whose cores' numbers fit."""
    budget = (1 - rate) * math.prod(size)
    shape = BlockCode(template, "token").shape(size)

    def numbers(rank: int) -> int:
        return replace(template, rank=rank).n_core_numbers(shape)

    # A ring's ranks have no bound of their own; the others stay below the longest side.
    fitting = [rank for rank in range(1, max(shape) + 1) if numbers(rank) <= budget]
    if not fitting:
        raise UsageError(
            f"a {template.decomposition} network of {size[1]} tokens of {size[0]} heads of "
            f"{size[2]} keeps at least {numbers(1) / math.prod(size):.3f} of its numbers; "
            f"rate {rate:g} leaves {1 - rate:.3f}."
        )
    return replace(template, rank=fitting[-1])
