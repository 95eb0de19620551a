"""Where the bits of each weight lie.

The rows of a matrix are cut into segments of 128, which fill whole words whatever the rate. In a
segment each input column has a stream of its own: 16-bit words, most significant bit first, to
which every row adds its bits. The window of a row ends with its own bits; before the first bit of
a stream come its last ones. So segments know nothing of each other: they are searched side by side,
or one after the errors of another, and a thread may start at any of them.

The words of 32 columns are a tile, a word of each column after the other: a vector register loads
the next word of 32 columns at once.
"""

import functools
from collections.abc import Iterator

import torch
from torch import Tensor

from einsort_vla.codec.curve.values import PERIOD, new_bits
from einsort_vla.codec.spec import Shape

SEGMENT, TILE_COLUMNS = 128, 32
WORD = 16  # bits; a column has as many words in a segment as a weight eighths


def segments(rows: int) -> Iterator[slice]:
    """The rows of each segment."""
    for first in range(0, rows, SEGMENT):
        yield slice(first, min(first + SEGMENT, rows))


def pieces(rows: int, eighths: int) -> Iterator[tuple[slice, slice]]:
    """The rows of each segment, and its words among those of a column."""
    first = 0
    for own in segments(rows):
        last = first + n_words(own.stop - own.start, eighths)
        yield own, slice(first, last)
        first = last


def n_words(rows: int, eighths: int) -> int:
    """Words of one column in a segment of that many rows."""
    return -(-(rows * eighths // PERIOD) // WORD)


def n_words_of(shape: Shape, eighths: int) -> int:
    """Words of a matrix of (out_features, in_features)."""
    rows, columns = shape
    return columns * sum(n_words(own.stop - own.start, eighths) for own in segments(rows))


def to_tiles(streams: Tensor) -> Tensor:
    """(columns, n_words) words of one segment in the order of the file, (columns * n_words,)."""
    return torch.cat([block.t().flatten() for block in streams.split(TILE_COLUMNS)])


def from_tiles(words: Tensor, columns: int) -> Tensor:
    """The inverse of `to_tiles`: (columns, n_words)."""
    n = len(words) // columns
    whole = columns // TILE_COLUMNS * TILE_COLUMNS
    streams = words.new_empty(columns, n)
    blocks = words[: whole * n].view(-1, n, TILE_COLUMNS).transpose(1, 2)
    streams[:whole] = blocks.reshape(whole, n)
    if whole < columns:
        streams[whole:] = words[whole * n :].view(n, -1).t()
    return streams


def pack(own: Tensor, before: Tensor, eighths: int) -> Tensor:
    """Streams of the bits that rows add; (n, n_words) int32, each below 2^16.

    Args:
        own: (n, rows) int32, new bits of each row.
        before: (n,) int32, the window before the first row: its last bits fill up the last word.
        eighths: of a bit a weight.
    """
    n, rows = own.shape
    word, shift = _places(rows, eighths, own.device)
    total = n_words(rows, eighths)
    # Bits that reach over the start of their word go to the end of the one before.
    moved = own << shift
    words = own.new_zeros(n, total + 1)
    words.index_add_(1, word + 1, moved & 2**WORD - 1).index_add_(1, word, moved >> WORD)
    words = words[:, 1:]
    left = WORD * total - rows * eighths // PERIOD
    words[:, -1] |= before & 2**left - 1
    return words


def windows(streams: Tensor, rows: int, eighths: int, window: int) -> Tensor:
    """(n, rows) int32: what each row sees of the (n, n_words) streams, int32 below 2^16."""
    word, shift = _places(rows, eighths, streams.device)
    pairs = streams.roll(1, dims=1) << WORD | streams  # fills the sign bit, too
    return pairs.index_select(1, word) >> shift & 2**window - 1


@functools.lru_cache(maxsize=64)
def _places(rows: int, eighths: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(rows,) words that the new bits of each row end in, and how many bits follow in that word."""
    ends = torch.tensor(new_bits(eighths, rows)).cumsum(0)
    word = (ends - 1) // WORD
    return word.to(device), (WORD * (word + 1) - ends).to(device, torch.int32)
