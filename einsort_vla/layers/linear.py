"""A linear layer whose weight stays coded."""

import torch
from torch import Tensor, nn

from einsort_vla.codec import CompressedTensor
from einsort_vla.kernels import make_backend


class CompressedLinear(nn.Module):
    """Stands in for `nn.Linear`; coded parts are buffers named `weight_<part>`.

    Args:
        compressed: the coded weight.
        bias: (out_features,) or None.
        backend: how it is multiplied.
        dtype: what `weight` says its type is; activations are cast to it by some policies.
    """

    def __init__(
        self,
        compressed: CompressedTensor,
        bias: Tensor | None,
        backend: str = "dense",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.out_features, self.in_features = compressed.shape
        self.spec = compressed.spec
        for part, tensor in compressed.parts.items():
            self.register_buffer(f"weight_{part}", tensor)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self._like: Tensor
        self.register_buffer("_like", torch.full((1,), torch.nan, dtype=dtype), persistent=False)
        self._backend = make_backend(backend, compressed)

    @property
    def weight(self) -> Tensor:
        """Shape, dtype and device of the weight for callers that ask; its values are NaN."""
        return self._like.expand(self.out_features, self.in_features)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features)."""
        return self._backend.linear(x, self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {self.spec}"
