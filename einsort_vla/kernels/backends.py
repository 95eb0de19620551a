"""The backends: the definition of the op, decoding once at load, and compiled ones."""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor
from torch.nn import functional

from einsort_vla.codec import CompressedTensor, Leader, decode
from einsort_vla.errors import unknown_name


class Backend(Protocol):
    """Multiplies activations by the transpose of one coded matrix, and adds a bias."""

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """(..., in_features) to (..., out_features), in the dtype and on the device of `x`.

        With equal weights the result has the bits of `nn.Linear`, whose bias goes into the product.
        """
        ...


class ReferenceBackend:
    """Decodes anew at each call: slow, no extra memory, the definition of the result."""

    def __init__(self, compressed: CompressedTensor) -> None:
        self._compressed = compressed

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        return functional.linear(x, decode(self._compressed).to(x), bias)


class DenseBackend:
    """Decodes once; as fast and as large in memory as the uncompressed layer."""

    def __init__(self, compressed: CompressedTensor) -> None:
        self._weight = decode(compressed)

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        self._weight = self._weight.to(x)  # a no-op but after a move
        return functional.linear(x, self._weight, bias)


class FactoredBackend:
    """Multiplies by the stored factors where a form can (`local`); else as the reference."""

    def __init__(self, compressed: CompressedTensor) -> None:
        self._compressed = compressed

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        c = self._compressed
        y = c.spec.matmul(x, c.parts, c.shape)
        return y if bias is None else y + bias


def _cpu(compressed: CompressedTensor) -> Backend:
    """Compiled code for what is in the `leader` form; the few others as the reference."""
    if not isinstance(compressed.spec, Leader):
        return ReferenceBackend(compressed)
    from einsort_vla.kernels.cpu import CpuBackend

    return CpuBackend(compressed)


BACKENDS: dict[str, Callable[[CompressedTensor], Backend]] = {
    "reference": ReferenceBackend,
    "dense": DenseBackend,
    "factored": FactoredBackend,
    "cpu": _cpu,
}


def check_backend(name: str) -> str:
    """The name itself, if there is such a backend.

    Raises:
        UsageError: there is none.
    """
    if name not in BACKENDS:
        raise unknown_name("backend", name, BACKENDS)
    return name


def make_backend(name: str, compressed: CompressedTensor) -> Backend:
    """The backend of that name for one matrix.

    Raises:
        UsageError: there is no such backend.
    """
    return BACKENDS[check_backend(name)](compressed)
