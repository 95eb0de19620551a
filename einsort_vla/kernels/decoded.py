"""The backend `decoded`: ordinary weights, decoded once."""

from torch import Tensor
from torch.nn import functional

from einsort_vla.codec import CompressedTensor
from einsort_vla.kernels.dispatch import decode_fast
from einsort_vla.kernels.registry import ANY_FORM, BackendSpec


class DecodedBackend:
    """Decodes when it is made; as fast and as large in memory as the uncompressed layer."""

    name = "decoded"

    def __init__(self, compressed: CompressedTensor) -> None:
        self._weight = decode_fast(compressed).contiguous()  # sums in the order of nn.Linear

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """See `Backend.linear`."""
        self._weight = self._weight.to(x)  # a no-op but after a move
        return functional.linear(x, self._weight, bias)


BACKEND = BackendSpec(DecodedBackend.name, {ANY_FORM: DecodedBackend})
