"""Decoding by the fastest code there is where the parts lie."""

import functools
import importlib
import logging
from collections.abc import Callable

from torch import Tensor

from einsort_vla.codec import CompressedTensor, Leader, decode
from einsort_vla.errors import MissingDependency

log = logging.getLogger(__name__)


def decode_fast(compressed: CompressedTensor) -> Tensor:
    """As `codec.decode`; by compiled code, for what is in the `leader` form in memory.

    Bit for bit the same, but for rounding where it is rotated; strides may be others.
    """
    if isinstance(compressed.spec, Leader) and compressed.parts["signs"].device.type == "cpu":
        return _decode_leader()(compressed)
    return decode(compressed)


@functools.cache  # without a compiler it is looked for, and missed, once
def _decode_leader() -> Callable[[CompressedTensor], Tensor]:
    backend = importlib.import_module("einsort_vla.kernels.cpu.backend")
    try:
        backend.library()
    except MissingDependency as error:
        log.warning("codes are decoded without compiled code, several times slower: %s", error)
        return decode
    return backend.decode
