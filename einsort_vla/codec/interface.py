"""A coded matrix; encode and decode for every form."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from einsort_vla.codec.hessian import Hessian
from einsort_vla.codec.spec import CodecSpec, Extent, Shape
from einsort_vla.errors import NumericsError, ShapeError


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


def encode(
    weight: Tensor,
    spec: CodecSpec,
    hessian: Hessian | None = None,
    may_lose_rows: bool = False,
) -> CompressedTensor:
    """Code one weight matrix.

    Args:
        weight: (out_features, in_features), any float dtype; not modified.
        spec: form and parameters.
        hessian: (in_features, in_features), X^T X of the layer's inputs; with it, the error of the
            outputs is made small rather than that of the weights. The stored bits are the same.
        may_lose_rows: let rows too small for float16 scales become coarse or zero.

    Returns:
        Parts of `spec.n_bits(weight.shape)` bits, on the CPU.

    Raises:
        ShapeError: the weight is not a matrix, or is empty, or the Hessian does not fit it.
        NumericsError: it is of no float type, holds NaN or infinity, or rows whose scales float16
            cannot hold; or the Hessian is not positive definite.
    """
    matrix = checked(weight)
    extent = Extent.of(matrix)
    if may_lose_rows:
        extent = replace(extent, smallest=torch.inf)
    if lack := spec.lack(extent):
        raise NumericsError(f"{lack}. Leave it dense: --exclude names such matrices.")
    return CompressedTensor(spec, (weight.shape[0], weight.shape[1]), spec.encode(matrix, hessian))


def checked(weight: Tensor) -> Tensor:
    """A weight as a float32 matrix, (out_features, in_features), of finite numbers.

    Raises:
        ShapeError: it is not a matrix, or is empty.
        NumericsError: it is of no float type, or holds NaN or infinity.
    """
    if weight.ndim != 2 or not weight.numel():
        raise ShapeError(f"only matrices are coded; the weight has shape {tuple(weight.shape)}.")
    if not weight.is_floating_point():
        raise NumericsError(
            f"the weight is of type {weight.dtype}: it is quantized already. Give the original."
        )
    matrix = weight.detach().float()
    if not torch.stack(torch.aminmax(matrix)).isfinite().all():  # NaN where there is one
        count = int((~torch.isfinite(matrix)).sum())
        raise NumericsError(f"the weight holds {count} NaN or infinite values; it cannot be coded.")
    return matrix


def decode(compressed: CompressedTensor) -> Tensor:
    """The coded matrix, (out_features, in_features) float32, on the device of its parts."""
    device = next(iter(compressed.parts.values())).device
    return compressed.spec.decode(compressed.parts, compressed.shape).to(device).contiguous()
