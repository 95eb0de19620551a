"""A Transformers cache that holds its tokens coded."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from torch import Tensor
from transformers.cache_utils import Cache

from einsort_vla.cache.block import CodedStates
from einsort_vla.cache.choice import cache_codec, check_rate, code_of
from einsort_vla.cache.layer import EinSortLayer
from einsort_vla.codec import DENSE_BITS, CodecSpec
from einsort_vla.errors import NumericsError, UsageError
from einsort_vla.names import DEFAULT_FORM


@dataclass(frozen=True)
class CacheReport:
    """What a cache holds and what it takes, with everything counted.

    Attributes:
        coded_entries: numbers of keys and values that are coded; a number that beams share counts
            once for each.
        coded_bytes: what they take: indices, signs, orders, cores, scales, padding.
        exact_entries: numbers that are kept as they were.
        exact_bytes: what those take.
        bits_by_part: bits an entry of the coded ones, by what they are for.
        core_kept_fraction: numbers of a network's cores by coded numbers; the EinSort paper's
            rate. None for other forms.
    """

    coded_entries: int
    coded_bytes: int
    exact_entries: int
    exact_bytes: int
    bits_by_part: dict[str, float]
    core_kept_fraction: float | None

    @property
    def bytes_stored(self) -> int:
        return self.coded_bytes + self.exact_bytes

    @property
    def bits_per_entry(self) -> float | None:
        """Of the coded ones; None without."""
        return 8 * self.coded_bytes / self.coded_entries if self.coded_entries else None

    @property
    def rate(self) -> float | None:
        """Share of the coded entries' bfloat16 bytes that is removed; None without."""
        bits = self.bits_per_entry
        return None if bits is None else 1 - bits / DENSE_BITS

    def __str__(self) -> str:
        """One sentence with the numbers."""
        exact = f"{self.exact_entries} entries exact in {self.exact_bytes} bytes"
        if self.bits_per_entry is None:
            return f"{exact}, none coded"
        parts = ", ".join(f"{name} {bits:.3f}" for name, bits in self.bits_by_part.items())
        core = self.core_kept_fraction
        kept = "" if core is None else f" (of core numbers alone: rate {1 - core:.3f})"
        return (
            f"{self.coded_entries} entries coded in {self.coded_bytes} bytes, "
            f"{self.bits_per_entry:.3f} bits an entry ({parts}), rate {self.rate:.3f}{kept}; "
            f"{exact}"
        )


class EinSortCache(Cache):
    """Keys and values of a decoder, coded; for `generate(past_key_values=...)` or a forward pass.

    The first tokens it is given are coded, layer by layer, once their attention has been computed
    from the exact ones; the EinSort paper's protocol, section 4.1. So is every later run of CHUNK
    tokens or more, such as the chunks of a prompt, with the exact ones before it. What is too short
    for a code of that rate, or beyond the range of its scales, stays exact; `report` counts it. It
    holds sequences of any
    length, also for models whose masks slide a window over it. Coded tokens stay on the device they
    came from, as packed integers; each step decodes them, in the type they came in: `curve` in
    memory by compiled code, all else by torch.

    Args:
        codec: `curve`, `scalar` or `network`, with options as for weights
            (`scalar group=32`), or a `Network` whose options are meant.
        rate: share of the bfloat16 bytes that is removed, everything counted; for a network that
            of its core numbers alone, as in the EinSort paper, and `report` says what it takes in
            truth. 0 codes nothing.
        block: tokens that are coded together where they come singly, once there are as many newer
            ones; if there is no code for so few, the least multiple that has one. 0 keeps such
            tokens exact.

    Raises:
        UsageError: an unknown codec or option, a rate outside [0, 0.95], a negative block.
    """

    def __init__(self, codec: str | CodecSpec = DEFAULT_FORM, rate: float = 0.75, block: int = 0):
        if block < 0:
            raise UsageError(f"a block has 1 or more tokens, or 0 for none; not {block}.")
        check_rate(rate)
        chosen = partial(code_of, cache_codec(codec), rate) if rate else None
        super().__init__(layer_class_to_replicate=cast(Any, partial(EinSortLayer, chosen, block)))
        self.layers: list[EinSortLayer]
        self._updated: int | None = None  # the last layer of this forward pass; -1 before the first

    def __iter__(self) -> Iterator[tuple[Tensor | None, Tensor | None, None]]:
        """Keys, values and no window of each layer, as `DynamicCache` gives them."""
        for layer in self.layers:
            yield layer.keys, layer.values, None

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """See `EinSortLayer.update`; errors name the layer.

        A decoder beside an encoder that is given this cache alone brings each layer's own tokens,
        and at once, in the same pass, those of the encoder, anew in each step. They are handed
        back, and not held. `EncoderDecoderCache(EinSortCache(), DynamicCache())` keeps them.
        """
        if layer_idx == self._updated:
            return key_states, value_states
        if self._updated is not None:
            self._updated = layer_idx
        try:
            return super().update(key_states, value_states, layer_idx, *args, **kwargs)
        except NumericsError as error:
            raise NumericsError(f"the cache of layer {layer_idx}: {error}") from error

    def get_mask_sizes(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        """As of any cache; models ask at the beginning of each forward pass."""
        self._updated = -1
        return super().get_mask_sizes(*args, **kwargs)

    def update_recurrent_state(self, *args: Any, **kwargs: Any) -> Tensor:
        """Refused, as `update_conv_state` is.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            "this model keeps recurrent or convolutional states beside its attention; EinSortCache "
            "holds keys and values only. Use Transformers' own cache for it."
        )

    update_conv_state = update_recurrent_state

    def share(self, is_exact: bool = False) -> "EinSortCache":
        """A copy that can be appended to apart; coded tokens are stored once for both.

        Args:
            is_exact: keep exact what is added to the copy, such as what is soon dropped again.
        """
        copy = EinSortCache(rate=0)
        copy.layer_class_to_replicate = self.layer_class_to_replicate
        copy.layers = [layer.share(is_exact) for layer in self.layers]
        return copy

    def report(self) -> CacheReport:
        """What the codes take by their specs; `nbytes` is what the tensors really take."""
        coded = [states for layer in self.layers for states in _distinct(layer)]
        entries = sum(
            states.size[0] * block.n_tokens * states.size[2]
            for layer in self.layers
            for block in layer.blocks
            for states in (*block.keys, *block.values)
        )
        exact = [t for layer in self.layers for t in (layer.recent_keys, layer.recent_values)]
        by_part: dict[str, float] = {}
        for states in coded:
            for name, bits in states.code.bits_by_part(states.size).items():
                by_part[name] = by_part.get(name, 0) + bits
        cores = [states.code.n_core_numbers(states.size) for states in coded]
        n_cores = sum(n for n in cores if n is not None)
        n_coded = sum(math.prod(states.size) for states in coded)
        return CacheReport(
            coded_entries=entries,
            coded_bytes=sum(states.code.n_bits(states.size) for states in coded) // 8,
            exact_entries=sum(t.numel() for t in exact),
            exact_bytes=sum(t.nbytes for t in exact),
            bits_by_part={name: bits / max(entries, 1) for name, bits in by_part.items()},
            core_kept_fraction=n_cores / n_coded if any(cores) else None,
        )

    def nbytes(self) -> int:
        """Bytes of all tensors that are held, each counted once."""
        held: dict[int, Tensor] = {}
        for layer in self.layers:
            own = [layer.recent_keys, layer.recent_values]
            own += [part for states in _distinct(layer) for part in states.parts.values()]
            held |= {tensor.untyped_storage().data_ptr(): tensor for tensor in own}
        return sum(tensor.untyped_storage().nbytes() for tensor in held.values())


def _distinct(layer: EinSortLayer) -> list[CodedStates]:
    """The coded tensors of a layer, each once."""
    found = {id(s): s for block in layer.blocks for s in (*block.keys, *block.values)}
    return list(found.values())
