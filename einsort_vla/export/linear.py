"""A linear layer as it is exported: nodes of the domain `einsort` over the coded streams."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.onnx import ops as onnx_ops

from einsort_vla.codec import CompressedTensor, Curve
from einsort_vla.codec.rotation import rotation_factors
from einsort_vla.layers import CompressedLinear

DOMAIN, VERSION = "einsort", 1
OPERATOR, ROTATION = "MatmulCurve", "Rotate"
WORDS_INPUT, SCALE_INPUT = 1, 2  # of an operator's node


class ExportedLinear(nn.Module):
    """What `CompressedLinear` becomes in a graph: its rotation, a `MatmulCurve` node, and its bias.

    It is for tracing; in PyTorch itself it computes nothing.

    Args:
        compressed: the weight, in the `curve` form.
        bias: (out_features,) or None.
        dtype: what `weight` says its type is; activations are cast to it by some policies.
        rotation: of a width; what turns the inputs of a weight that is rotated.
    """

    def __init__(
        self, compressed: CompressedTensor, bias: Tensor | None, dtype: torch.dtype,
        rotation: Callable[[int], nn.Module],
    ) -> None:  # fmt: skip
        super().__init__()
        spec, parts = compressed.spec, compressed.parts
        assert isinstance(spec, Curve)
        self.out_features, self.in_features = compressed.shape
        self.spec, self.unit = spec, float(parts["unit"])
        self.words = nn.Buffer(in_pairs(parts["words"]))
        self.scale = nn.Buffer(parts["scale"].clone().view(torch.int8))
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), False)
        self.rotation = rotation(self.in_features) if spec.rotated else nn.Identity()
        self._like = torch.full((1,), torch.nan, dtype=dtype)

    @property
    def weight(self) -> Tensor:
        """Shape and type of the weight for callers that ask; its values are NaN."""
        return self._like.expand(self.out_features, self.in_features)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features)."""
        y = onnx_ops.symbolic(
            f"{DOMAIN}::{OPERATOR}",
            (self.rotation(x), self.words, self.scale),
            {
                "out_features": self.out_features, "in_features": self.in_features,
                "eighths": self.spec.eighths, "window": self.spec.window, "unit": self.unit,
                "plugin_namespace": DOMAIN, "plugin_version": str(VERSION),
            },
            dtype=x.dtype,
            shape=(*x.shape[:-1], self.out_features),
            version=VERSION,
        )  # fmt: skip
        return y if self.bias is None else y + self.bias.to(y.dtype)


def in_pairs(words: Tensor) -> Tensor:
    """(ceil(n / 2),) int32 of (n,) int16 words, the first in the lower half, zeros behind the last.

    Engines would widen int16 to twice its size.
    """
    padded = torch.zeros(-(-len(words) // 2) * 2, dtype=torch.int16)
    padded[: len(words)] = words
    return padded.view(torch.int32)


class Rotation(nn.Module):
    """`codec.rotation.rotate` by small matrices: H of 2^k is the Kronecker product of two.

    Traced, it is plain products, which engines know how to fuse.
    """

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


class RotationNode(Rotation):
    """Traced, it is one `Rotate` node, for which the native library has code."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., n) to (..., n)."""
        matrices = (self.signs, self.first, self.second, self.cosine)
        return onnx_ops.symbolic(
            f"{DOMAIN}::{ROTATION}", (x, *matrices), dtype=x.dtype, shape=x.shape, version=VERSION
        )


# What is exported of a matrix, by its form; of another form it is decoded.
OPERATORS = {Curve.form: ExportedLinear}


def replace_linears_(module: nn.Module, has_rotation_nodes: bool = True) -> None:
    """Put what is exported in the place of every coded layer, in place.

    A matrix in a form without an operator (those few that a plan keeps without error) becomes an
    ordinary dense layer.

    Args:
        module: what is changed.
        has_rotation_nodes: turn inputs by `Rotate` nodes, else by plain products.
    """
    rotation = functools.cache(RotationNode if has_rotation_nodes else Rotation)
    for path, layer in list(module.named_modules()):
        if isinstance(layer, CompressedLinear):
            operator = OPERATORS.get(layer.spec.form)
            own = layer.compressed, layer.bias, layer.weight.dtype
            replaced = operator(*own, rotation) if operator else layer.decoded()
            module.set_submodule(path, replaced)
