"""The backend `factored`: products with the stored factors, one after the other."""

from torch import Tensor

from einsort_vla.codec import CompressedTensor, Local
from einsort_vla.kernels.registry import BackendSpec


class FactoredBackend:
    """Never builds the matrix."""

    name = "factored"

    def __init__(self, compressed: CompressedTensor) -> None:
        assert isinstance(compressed.spec, Local)
        self._compressed, self._spec = compressed, compressed.spec

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """See `Backend.linear`; sums are in another order than those of `nn.Linear`."""
        y = self._spec.matmul(x, self._compressed.parts, self._compressed.shape)
        return y if bias is None else y + bias


BACKEND = BackendSpec(FactoredBackend.name, {Local.form: FactoredBackend})
