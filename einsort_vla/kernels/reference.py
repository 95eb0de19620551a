"""The backend `reference`: the definition of the result."""

from torch import Tensor
from torch.nn import functional

from einsort_vla.codec import CompressedTensor, decode
from einsort_vla.kernels.registry import ANY_FORM, BackendSpec


class ReferenceBackend:
    """Decodes anew at each call: slow, no extra memory."""

    name = "reference"

    def __init__(self, compressed: CompressedTensor) -> None:
        self._compressed = compressed

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """See `Backend.linear`."""
        return functional.linear(x, decode(self._compressed).to(x), bias)


BACKEND = BackendSpec(ReferenceBackend.name, {ANY_FORM: ReferenceBackend})
