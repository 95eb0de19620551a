"""The backend `factored`: products with the stored factors, one after the other."""

from torch import Tensor

from einsort_vla.codec import CompressedTensor, Local
from einsort_vla.kernels.registry import BackendSpec


class FactoredBackend:
    """Never builds the matrix."""

    name = "factored"

    def __init__(self, compressed: CompressedTensor) -> None:
        self._compressed = compressed

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """See `Backend.linear`; sums are in another order than those of `nn.Linear`."""
        c = self._compressed
        y = c.spec.matmul(x, c.parts, c.shape)
        return y if bias is None else y + bias


BACKEND = BackendSpec(FactoredBackend.name, {Local.form: FactoredBackend})
