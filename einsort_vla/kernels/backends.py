"""The backends: the definition of the op, decoding once at load, and compiled ones."""

import functools
import importlib
import logging
from collections.abc import Callable
from itertools import pairwise
from typing import Protocol

from torch import Tensor
from torch.nn import functional

from einsort_vla.codec import CompressedTensor, Leader, decode
from einsort_vla.errors import MissingDependency, unknown_name
from einsort_vla.kernels.decoding import decode_fast

log = logging.getLogger(__name__)


class Backend(Protocol):
    """Multiplies activations by the transpose of one coded matrix, and adds a bias."""

    name: str
    """Of what really computes: what `auto` and the compiled backends chose for this matrix."""

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """(..., in_features) to (..., out_features), in the dtype and on the device of `x`.

        With equal weights the result has the bits of `nn.Linear`, whose bias goes into the product.
        """
        ...


class ReferenceBackend:
    """Decodes anew at each call: slow, no extra memory, the definition of the result."""

    name = "reference"

    def __init__(self, compressed: CompressedTensor) -> None:
        self._compressed = compressed

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        return functional.linear(x, decode(self._compressed).to(x), bias)


class DenseBackend:
    """Decodes once; as fast and as large in memory as the uncompressed layer."""

    name = "dense"

    def __init__(self, compressed: CompressedTensor) -> None:
        self._weight = decode_fast(compressed).contiguous()  # sums in the order of nn.Linear

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        self._weight = self._weight.to(x)  # a no-op but after a move
        return functional.linear(x, self._weight, bias)


class FactoredBackend:
    """Multiplies by the stored factors where a form can (`local`); else as the reference."""

    name = "factored"

    def __init__(self, compressed: CompressedTensor) -> None:
        self._compressed = compressed

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        c = self._compressed
        y = c.spec.matmul(x, c.parts, c.shape)
        return y if bias is None else y + bias


def _compiled(module: str, cls: str) -> Callable[[CompressedTensor], Backend]:
    """Compiled code for what is in the `leader` form; the few others as the reference."""

    def make(compressed: CompressedTensor) -> Backend:
        if not isinstance(compressed.spec, Leader):
            return ReferenceBackend(compressed)
        return getattr(importlib.import_module(module), cls)(compressed)

    return make


def _auto(compressed: CompressedTensor) -> Backend:
    """The fastest backend there is where the parts lie; see `make_backend`."""
    if not isinstance(compressed.spec, Leader):
        _fall_back(f"{compressed.spec.form} weights", "dense", "only leader has compiled code")
        return DenseBackend(compressed)
    on_gpu = next(iter(compressed.parts.values())).is_cuda
    names = ("cuda", "triton", "dense") if on_gpu else ("cpu", "dense")
    for name, next_name in pairwise(names):
        try:
            return BACKENDS[name](compressed)
        except MissingDependency as error:
            _fall_back("leader weights", next_name, str(error))
    return DenseBackend(compressed)


@functools.cache  # once with each reason
def _fall_back(what: str, name: str, reason: str) -> None:
    log.warning("--backend auto: %s go to %s: %s", what, name, reason)


BACKENDS: dict[str, Callable[[CompressedTensor], Backend]] = {
    "reference": ReferenceBackend,
    "dense": DenseBackend,
    "factored": FactoredBackend,
    "cpu": _compiled("einsort_vla.kernels.cpu", "CpuBackend"),
    "triton": _compiled("einsort_vla.kernels.triton", "TritonBackend"),
    "cuda": _compiled("einsort_vla.kernels.cuda.backend", "CudaBackend"),
    "auto": _auto,
}


def check_backend(name: str) -> str:
    """The name itself, if there is such a backend.

    Raises:
        UsageError: there is none.
    """
    if name not in BACKENDS:
        raise unknown_name("backend", name, BACKENDS)
    return name


def check_available(name: str) -> str:
    """The name itself, if there is such a backend and it can run on this machine.

    Raises:
        UsageError: there is none.
        MissingDependency: it needs a GPU, and there is none that will do.
    """
    if device_of(check_backend(name)) == "cuda":
        backend = importlib.import_module(f"einsort_vla.kernels.{name}.backend")
        if reason := backend.why_unavailable():
            raise MissingDependency(f"--backend {name}: {reason}")
    return name


def device_of(name: str) -> str:
    """The device that a policy must be on for a backend."""
    return "cuda" if name in ("cuda", "triton") else "cpu"


def make_backend(name: str, compressed: CompressedTensor) -> Backend:
    """The backend of that name for one matrix.

    `auto` takes `cuda`, else `triton`, for what lies on a GPU, and `cpu` for what lies in memory;
    `dense` where there is none of them, or no compiled code for the form. Each reason is logged
    once; the backend's own `name` says what it became.

    Raises:
        UsageError: there is no such backend.
        MissingDependency: it is named, and cannot run here; the message says why.
    """
    return BACKENDS[check_backend(name)](compressed)
