"""A coded matrix; encode and decode for every form."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from einsort_vla.codec.spec import CodecSpec, Shape
from einsort_vla.errors import NumericsError, ShapeError

FLOAT16_MAX = torch.finfo(torch.float16).max


@dataclass(frozen=True)
class CompressedTensor:
    """What is stored of one matrix.

    Attributes:
        spec: how the parts are to be read.
        shape: (out_features, in_features) of the decoded matrix.
        parts: name to tensor; which ones there are follows from the form.
    """

    spec: CodecSpec
    shape: Shape
    parts: dict[str, Tensor]

    @property
    def stored_bits(self) -> int:
        """Bits of all parts as they lie in the file."""
        return sum(8 * part.nbytes for part in self.parts.values())


def encode(weight: Tensor, spec: CodecSpec, hessian: Tensor | None = None) -> CompressedTensor:
    """Code one weight matrix.

    Args:
        weight: (out_features, in_features), any float dtype; not modified.
        spec: form and parameters.
        hessian: (in_features, in_features), X^T X of the layer's inputs; with it, the error of the
            outputs is made small rather than that of the weights. The stored bits are the same.

    Returns:
        Parts of `spec.n_bits(weight.shape)` bits, on the CPU.

    Raises:
        ShapeError: the weight is not a matrix, or is empty, or the Hessian does not fit it.
        NumericsError: it is of no float type, holds NaN or infinity, or values a float16 scale
            cannot hold; or the Hessian is not positive definite.
    """
    if weight.ndim != 2 or not weight.numel():
        raise ShapeError(f"only matrices are coded; the weight has shape {tuple(weight.shape)}.")
    if not weight.is_floating_point():
        raise NumericsError(
            f"the weight is of type {weight.dtype}: it is quantized already. Give the original."
        )
    matrix = weight.detach().float()
    low, high = (float(bound) for bound in torch.aminmax(matrix))  # NaN where there is one
    if not (math.isfinite(low) and math.isfinite(high)):
        count = int((~torch.isfinite(matrix)).sum())
        raise NumericsError(f"the weight holds {count} NaN or infinite values; it cannot be coded.")
    if max(-low, high) > FLOAT16_MAX:
        raise NumericsError(
            f"the weight reaches {max(-low, high):.3g}, "
            f"beyond the float16 range of its scales ({FLOAT16_MAX:.0f})."
        )
    return CompressedTensor(spec, (weight.shape[0], weight.shape[1]), spec.encode(matrix, hessian))


def decode(compressed: CompressedTensor) -> Tensor:
    """The coded matrix, (out_features, in_features) float32, on the device of its parts."""
    device = next(iter(compressed.parts.values())).device
    return compressed.spec.decode(compressed.parts, compressed.shape).to(device).contiguous()
