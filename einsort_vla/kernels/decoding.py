"""Decoding by the fastest code there is where the parts lie."""

import functools
import logging

from torch import Tensor

from einsort_vla.codec import CompressedTensor, decode
from einsort_vla.kernels.registry import backend_specs

log = logging.getLogger(__name__)


def decode_fast(compressed: CompressedTensor) -> Tensor:
    """As `codec.decode`; by compiled code, if a backend has some for the form and the device.

    Bit for bit the same, but for rounding where it is rotated; strides may be others.
    """
    device = next(iter(compressed.parts.values())).device.type
    for spec in backend_specs():
        decoder = spec.decoders.get(compressed.spec.form)
        if decoder is None or spec.device != device:
            continue
        if not (reason := spec.why_unavailable()):
            return decoder(compressed)
        _log_once(reason)
    return decode(compressed)


@functools.cache
def _log_once(reason: str) -> None:
    log.warning("codes are decoded without compiled code, several times slower: %s", reason)
