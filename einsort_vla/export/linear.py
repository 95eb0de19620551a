"""A linear layer as it is exported: one node of the domain `einsort` over the coded streams."""

import torch
from torch import Tensor, nn
from torch.onnx import ops as onnx_ops

from einsort_vla.codec import CompressedTensor, Leader
from einsort_vla.codec.rotation import rotation_factors
from einsort_vla.kernels.words import to_words
from einsort_vla.layers import CompressedLinear

DOMAIN, OPERATOR, VERSION = "einsort", "MatmulLeader", 1


class ExportedLinear(nn.Module):
    """What `CompressedLinear` becomes in a graph: one `MatmulLeader` node, and its bias.

    It is for tracing; in PyTorch itself it computes nothing.

    Args:
        compressed: the weight, in the `leader` form.
        bias: (out_features,) or None.
        dtype: what `weight` says its type is; activations are cast to it by some policies.
    """

    def __init__(
        self, compressed: CompressedTensor, bias: Tensor | None, dtype: torch.dtype
    ) -> None:
        super().__init__()
        spec, parts = compressed.spec, compressed.parts
        assert isinstance(spec, Leader)
        self.out_features, self.in_features = compressed.shape
        self.spec = spec
        self.signs = nn.Buffer(to_words(parts["signs"].clone()))
        self.indices = nn.Buffer(to_words(parts["indices"].clone()))
        self.table = nn.Buffer(parts["table"].float() if spec.refined else spec.table())
        self.scale = nn.Buffer(parts["scale"].clone())
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), False)
        self.rotation = _Rotation(self.in_features) if spec.rotated else nn.Identity()
        self._like = torch.full((1,), torch.nan, dtype=dtype)

    @property
    def weight(self) -> Tensor:
        """Shape and type of the weight for callers that ask; its values are NaN."""
        return self._like.expand(self.out_features, self.in_features)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features)."""
        spec = self.spec
        y = onnx_ops.symbolic(
            f"{DOMAIN}::{OPERATOR}",
            (self.rotation(x), self.signs, self.indices, self.table, self.scale),
            {
                "out_features": self.out_features, "in_features": self.in_features,
                "d": spec.d, "b": spec.b, "s": spec.s,
                "plugin_namespace": DOMAIN, "plugin_version": str(VERSION),
            },
            dtype=x.dtype,
            shape=(*x.shape[:-1], self.out_features),
            version=VERSION,
        )  # fmt: skip
        return y if self.bias is None else y + self.bias.to(y.dtype)


class _Rotation(nn.Module):
    """`codec.rotation.rotate` by small matrices: H of 2^k is the Kronecker product of two."""

    def __init__(self, n: int) -> None:
        super().__init__()
        signs, (first, second, cosine) = rotation_factors(n, 2)
        self.signs, self.cosine = nn.Buffer(signs.float()), nn.Buffer(cosine.float())
        self.first, self.second = nn.Buffer(first.float()), nn.Buffer(second.float())

    def forward(self, x: Tensor) -> Tensor:
        """(..., n) to (..., n)."""
        sizes = (len(self.first), len(self.second), len(self.cosine))
        folded = (x.float() * self.signs).unflatten(-1, sizes) @ self.cosine
        folded = self.first @ (self.second @ folded).flatten(-2)
        return folded.flatten(-2).to(x.dtype)


# What is exported of a matrix, by its form; of another form it is decoded.
OPERATORS = {Leader.form: ExportedLinear}


def replace_linears_(module: nn.Module) -> None:
    """Put what is exported in the place of every coded layer, in place.

    A matrix in a form without an operator (those few that a plan keeps without error) becomes an
    ordinary dense layer.
    """
    for path, layer in list(module.named_modules()):
        if isinstance(layer, CompressedLinear):
            operator = OPERATORS.get(layer.spec.form)
            own = layer.compressed, layer.bias, layer.weight.dtype
            module.set_submodule(path, operator(*own) if operator else layer.decoded())
