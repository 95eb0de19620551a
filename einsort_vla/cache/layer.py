"""One attention layer's keys and values: coded blocks, then the latest tokens as they are."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from einsort_vla.cache.block import BlockCode, CodedStates, Size
from einsort_vla.errors import NumericsError, ShapeError

Choose = Callable[[Size], tuple[BlockCode, BlockCode] | None]
CHUNK = 16  # tokens that come at once and are coded; fewer may be a draft's, and dropped soon


@dataclass(frozen=True)
class CodedBlock:
    """A run of tokens of a whole batch; what sequences share is stored once."""

    keys: tuple[CodedStates, ...]  # one for each sequence of the batch
    values: tuple[CodedStates, ...]
    n_tokens: int  # that still count; a crop may have cut some off the end

    def pick(self, sequences: Sequence[int]) -> "CodedBlock":
        keys, values = (tuple(own[k] for k in sequences) for own in (self.keys, self.values))
        return replace(self, keys=keys, values=values)


class EinSortLayer(DynamicLayer):
    """The first tokens it is given are coded and handed back as they were, and so are later ones
    that come by CHUNK or more; others stay exact, or are coded `block` at a time, once there are as
    many newer ones. What no code can hold stays exact.

    Nothing decoded is kept: each step decodes what it attends to.

    Attributes:
        blocks: coded tokens, oldest first.
        recent_keys: (batch, heads, tokens, head_dim), those after them; likewise `recent_values`.

    Args:
        choose: the codes of keys and values of a block of some size, or None if it is too short for
            any; in its place None keeps all exact.
        block: see `EinSortCache`.
    """

    def __init__(self, choose: Choose | None, block: int = 0) -> None:
        # Not the parent's: it would assign keys and values, which are made anew at each look here.
        self._choose = choose
        self._block = block
        self.reset()

    @property
    def keys(self) -> Tensor | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """(batch, heads, tokens, head_dim), decoded and exact; None before the first update."""
        if not self.is_initialized:
            return None
        return self._joined((block.keys for block in self.blocks), self.recent_keys)

    @property
    def values(self) -> Tensor | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As `keys`."""
        if not self.is_initialized:
            return None
        return self._joined((block.values for block in self.blocks), self.recent_values)

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Take over types, device and batch size of what is to come."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.recent_keys = key_states[..., :0, :].clone()
        self.recent_values = value_states[..., :0, :].clone()
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Add tokens, (batch, heads, tokens, head_dim).

        Returns:
            All keys and values; those that were exact before are so once more, though coded now.

        Raises:
            NumericsError: NaN or infinity is to be coded.
            ShapeError: the batch is of another size than before.
            UsageError: no code of the asked rate exists, however many tokens there are.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if len(key_states) != len(self.recent_keys):
            raise ShapeError(
                f"the cache holds {len(self.recent_keys)} sequences, the new tokens are of "
                f"{len(key_states)}. Make a new cache, or reset this one."
            )
        recent_keys = torch.cat([self.recent_keys, key_states], dim=-2)
        recent_values = torch.cat([self.recent_values, value_states], dim=-2)
        new = list(self._code(recent_keys, recent_values))
        keys = self._joined((block.keys for block in self.blocks), recent_keys)
        values = self._joined((block.values for block in self.blocks), recent_values)
        n_coded = sum(block.n_tokens for block in new)
        self.blocks += new
        self.recent_keys = _from(recent_keys, n_coded)
        self.recent_values = _from(recent_values, n_coded)
        return keys, values

    def get_seq_length(self) -> int:
        """Tokens held."""
        if not self.is_initialized:
            return 0
        return sum(block.n_tokens for block in self.blocks) + self.recent_keys.shape[-2]

    def crop(self, max_length: int) -> None:
        """Keep the first `max_length` tokens; if negative, all but so many last ones.

        A coded block that is cut keeps its size: what is cut off is decoded and left out.
        """
        length = self.get_seq_length()
        left = max(0, length + max_length) if max_length < 0 else max_length
        if left >= length:
            return
        kept = []
        for block in self.blocks:
            if left:
                kept.append(replace(block, n_tokens=min(block.n_tokens, left)))
                left -= kept[-1].n_tokens
        self.blocks = kept
        self.recent_keys = self.recent_keys[..., :left, :].clone()  # a view would hold all of it
        self.recent_values = self.recent_values[..., :left, :].clone()

    def reset(self) -> None:
        """Forget all tokens, and types and batch size with them."""
        self.blocks: list[CodedBlock] = []
        self.recent_keys = self.recent_values = torch.empty(0)
        self.is_initialized = False

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Sequence k becomes what sequence `beam_idx[k]` was."""
        self.batch_select_indices(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each sequence `repeats` times, one after the other; coded ones are stored once."""
        self.batch_select_indices(torch.arange(len(self.recent_keys)).repeat_interleave(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the named sequences, in that order; indices or a mask."""
        if not self.is_initialized:
            return
        chosen = torch.arange(len(self.recent_keys))[indices.cpu()]
        self.blocks = [block.pick(chosen.tolist()) for block in self.blocks]
        self.recent_keys = self.recent_keys[chosen.to(self.recent_keys.device)]
        self.recent_values = self.recent_values[chosen.to(self.recent_values.device)]

    def share(self, is_exact: bool = False) -> "EinSortLayer":
        """A copy that goes its own way but has the coded blocks in common; they never change.

        Args:
            is_exact: keep exact what is added to the copy.
        """
        copy = EinSortLayer(None if is_exact else self._choose, self._block)
        if self.is_initialized:
            copy.lazy_initialization(self.recent_keys, self.recent_values)
            copy.blocks = list(self.blocks)
            copy.recent_keys, copy.recent_values = self.recent_keys, self.recent_values
        return copy

    def _code(self, keys: Tensor, values: Tensor) -> Iterator[CodedBlock]:
        """Code those of the exact tokens whose turn has come."""
        n = keys.shape[-2]
        if self._choose is None or n == 0:
            return
        is_first, n_new = self.get_seq_length() == 0, n - self.recent_keys.shape[-2]
        if is_first or n_new >= CHUNK:
            whole = _coded(self._choose, keys, values)
            if whole is not None:
                yield whole
                return
        size = self._block_size(self._choose, keys, values)
        for k in range(0, n - 2 * size + 1, size) if size else ():
            run = (..., slice(k, k + size), slice(None))
            block = _coded(self._choose, keys[run], values[run])
            if block is None:
                return  # blocks follow each other: those after it wait
            yield block

    def _block_size(self, choose: Choose, keys: Tensor, values: Tensor) -> int:
        """The least multiple of `block` tokens that have a code and as many newer ones, or 0."""
        if not self._block:
            return 0
        sizes = range(self._block, keys.shape[-2] // 2 + 1, self._block)
        return next((size for size in sizes if _codes(choose, keys, values, size)), 0)

    def _joined(self, blocks: Iterator[tuple[CodedStates, ...]], recent: Tensor) -> Tensor:
        """What is decoded of the blocks, and the recent tokens."""
        if not self.blocks:
            return recent
        batch, heads, n_recent, dim = recent.shape
        sizes = [*(block.n_tokens for block in self.blocks), n_recent]
        joined = recent.new_empty(batch, heads, sum(sizes), dim)
        *runs, last = joined.split(sizes, dim=-2)
        for run, own in zip(runs, blocks, strict=True):
            for out, states in zip(run, own, strict=True):
                states.decode(out)
        last.copy_(recent)
        return joined


def _codes(
    choose: Choose, keys: Tensor, values: Tensor, tokens: int
) -> tuple[BlockCode, BlockCode] | None:
    """The codes of so many tokens' keys and values; None if there are none for so few."""
    of_keys, of_values = (choose((s.shape[1], tokens, s.shape[-1])) for s in (keys, values))
    return (of_keys[0], of_values[1]) if of_keys and of_values else None


def _coded(choose: Choose, keys: Tensor, values: Tensor) -> CodedBlock | None:
    """A block of all tokens; None if they are too few, or beyond the range of the scales.

    Raises:
        NumericsError: there is NaN or infinity in them.
    """
    tokens = keys.shape[-2]
    codes = _codes(choose, keys, values, tokens)
    if codes is None:
        return None
    try:
        coded = [
            tuple(code.encode(own) for own in states)
            for code, states in zip(codes, (keys, values), strict=True)
        ]
    except NumericsError:
        if not (keys.isfinite().all() and values.isfinite().all()):
            raise
        return None
    return CodedBlock(coded[0], coded[1], tokens)


def _from(states: Tensor, n: int) -> Tensor:
    """The tokens from the n-th on, without holding the others."""
    return states[..., n:, :].clone() if n else states
