"""Coded streams as devices read them."""

import torch
from torch import Tensor

_WORD_BYTES = 4


def to_words(stream: Tensor) -> Tensor:
    """(ceil(n / 4) + 1,) int32: the bytes of a stream, zeros after them, on its device.

    With the zero word at the end a reader may always load the word after the one it needs. The
    stream itself, (n,) uint8, becomes a view of the result, so that it is held once.
    """
    n = stream.numel()
    with torch.inference_mode(False):  # the stream is a layer's buffer, to be loaded again
        words = torch.zeros(-(-n // _WORD_BYTES) + 1, dtype=torch.int32, device=stream.device)
        held = words.view(torch.uint8)[:n]
        held.copy_(stream)
        stream.data = held
    return words
