"""encode, decode and n_bits for every form."""

from types import SimpleNamespace

import torch
from torch import Tensor

from einsort_vla.codec import leader, scalar
from einsort_vla.codec.spec import DENSE_BITS, CodecSpec
from einsort_vla.codec.tensor import CompressedTensor
from einsort_vla.errors import NumericsError, ShapeError

FLOAT16_MAX = torch.finfo(torch.float16).max


def _encode_dense(weight: Tensor, spec: CodecSpec) -> CompressedTensor:
    parts = {"dense": weight.to(torch.bfloat16)}
    return CompressedTensor(spec, (weight.shape[0], weight.shape[1]), parts)


_DENSE = SimpleNamespace(
    encode=_encode_dense,
    decode=lambda compressed: compressed.parts["dense"].float(),
    n_bits=lambda spec, shape: DENSE_BITS * shape[0] * shape[1],
)
_FORMS = {"dense": _DENSE, "leader": leader, "scalar": scalar}


def encode(weight: Tensor, spec: CodecSpec) -> CompressedTensor:
    """Code one weight matrix.

    Args:
        weight: (out_features, in_features), any float dtype; not modified.
        spec: form and parameters.

    Returns:
        Parts of `n_bits(spec, weight.shape)` bits, on the CPU.

    Raises:
        ShapeError: the weight is not a matrix, or is empty.
        NumericsError: it holds NaN or infinity, or values a float16 scale cannot hold.
    """
    if weight.ndim != 2 or not weight.numel():
        raise ShapeError(f"a matrix is coded, but the weight has shape {tuple(weight.shape)}.")
    matrix = weight.detach().float()
    if not torch.isfinite(matrix).all():
        count = int((~torch.isfinite(matrix)).sum())
        raise NumericsError(f"the weight holds {count} NaN or infinite values; it cannot be coded.")
    if float(matrix.abs().max()) > FLOAT16_MAX:
        raise NumericsError(
            f"the weight reaches {float(matrix.abs().max()):.3g}, "
            f"beyond the float16 range of its scales ({FLOAT16_MAX:.0f})."
        )
    return _FORMS[spec.form].encode(matrix, spec)


def decode(compressed: CompressedTensor) -> Tensor:
    """The coded matrix, (out_features, in_features) float32, on the CPU."""
    return _FORMS[compressed.spec.form].decode(compressed).contiguous()


def n_bits(spec: CodecSpec, shape: tuple[int, int]) -> int:
    """Exactly the bits that `encode` stores for a matrix of that shape."""
    return _FORMS[spec.form].n_bits(spec, shape)
