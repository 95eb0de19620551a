"""Which backend multiplies one matrix, and which code decodes it.

The one that was asked for, or what takes its place.
"""

import functools
import logging
from typing import NamedTuple

from torch import Tensor

from einsort_vla.codec import CompressedTensor, decode
from einsort_vla.errors import MissingDependency
from einsort_vla.kernels.registry import DECODED, Backend, BackendChoice, backend_specs
from einsort_vla.names import AUTO

log = logging.getLogger(__name__)


class Fallback(NamedTuple):
    """Another backend computes than the one that was asked for, or that `auto` prefers."""

    form: str
    """Of the matrix."""
    asked: str
    used: str
    reason: str

    def __str__(self) -> str:
        return f"--backend {self.asked}: {self.form} weights go to {self.used}: {self.reason}"


def make_backend(asked: BackendChoice, compressed: CompressedTensor) -> Backend:
    """What multiplies one matrix; see `resolve`. The reason of a fallback is logged once.

    Raises:
        MissingDependency: see `resolve`.
    """
    used, fallback = resolve(asked, compressed)
    if fallback is not None:
        _log_once(str(fallback))
    make = used.spec.maker(compressed.spec.form)
    assert make is not None
    return make(compressed) if used.options is None else make(compressed, used.options)


def resolve(
    asked: BackendChoice, compressed: CompressedTensor
) -> tuple[BackendChoice, Fallback | None]:
    """What a choice becomes for one matrix, and why, if that is another backend.

    A form for which a backend has no code goes to `decoded`. `auto` takes the first backend that
    has code for the form and can run where the parts lie, else `decoded`.

    Raises:
        MissingDependency: the backend is named, and cannot run here; the message says why.
    """
    form, reasons, used = compressed.spec.form, [], DECODED
    for candidate in _candidates(asked, compressed):
        spec = candidate.spec
        if spec.maker(form) is None:
            reasons.append(f"{spec.name} has code for {', '.join(sorted(spec.makers))} only")
        elif reason := spec.why_unavailable():
            if asked.name != AUTO:
                raise MissingDependency(f"--backend {spec.name}: {reason}")
            reasons.append(f"{spec.name}: {reason}")
        else:
            used = candidate
            break
    reason = "; ".join(reasons)
    return used, Fallback(form, str(asked), used.name, reason) if reason else None


def _candidates(asked: BackendChoice, compressed: CompressedTensor) -> list[BackendChoice]:
    if asked.name != AUTO:
        return [asked]
    device = "cuda" if next(iter(compressed.parts.values())).is_cuda else "cpu"
    specs = [spec for spec in backend_specs() if spec.is_automatic and spec.device == device]
    return [BackendChoice.parse(spec.name) for spec in specs]


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
        _log_once(f"codes are decoded without compiled code, several times slower: {reason}")
    return decode(compressed)


@functools.cache
def _log_once(message: str) -> None:
    log.warning("%s", message)


def check_available(text: str) -> BackendChoice:
    """What a text asks for, if there is such a backend and it can run on this machine.

    Raises:
        UsageError: there is no such backend or option.
        MissingDependency: it needs a compiler or a GPU, and there is none that will do.
    """
    choice = BackendChoice.parse(text)
    if reason := choice.spec.why_unavailable():
        raise MissingDependency(f"--backend {choice.name}: {reason}")
    return choice


def device_of(text: str) -> str:
    """The device that a policy must be on for what a text asks for.

    Raises:
        UsageError: there is no such backend or option.
    """
    return BackendChoice.parse(text).spec.device
