"""Decoding by the fastest code there is where the parts lie."""

import functools
import importlib
import logging

from torch import Tensor

from einsort_vla.codec import CompressedTensor, Leader, decode
from einsort_vla.errors import MissingDependency

log = logging.getLogger(__name__)


def decode_fast(compressed: CompressedTensor) -> Tensor:
    """As `codec.decode`; by compiled code, for what is in the `leader` form in memory.

    Bit for bit the same, but for rounding where it is rotated.
    """
    if isinstance(compressed.spec, Leader) and not compressed.parts["signs"].is_cuda:
        try:
            return importlib.import_module("einsort_vla.kernels.cpu.backend").decode(compressed)
        except MissingDependency as error:
            _say_slow(str(error))
    return decode(compressed)


@functools.cache  # once with each reason
def _say_slow(reason: str) -> None:
    log.warning("codes are decoded without compiled code, some times slower: %s", reason)
