"""The `scalar` form: symmetric round-to-nearest, one scale a row. The yardstick, not a product."""

import torch
from torch import Tensor

from einsort_vla.codec.packing import pack, packed_bits, unpack
from einsort_vla.codec.spec import SCALE_BITS, CodecSpec
from einsort_vla.codec.tensor import CompressedTensor


def encode(weight: Tensor, spec: CodecSpec) -> CompressedTensor:
    """Code a finite float32 matrix, (out_features, in_features)."""
    limit = 2 ** (spec.b - 1) - 1
    # The largest magnitude is stored, not the step: fine steps would be float16 subnormals.
    scale = weight.abs().amax(1).to(torch.float16)
    step = scale.float().clamp_min(torch.finfo(torch.float16).tiny)[:, None] / limit
    levels = (weight / step).round().clamp(-limit, limit).to(torch.int64)
    parts = {"indices": pack(levels + limit, spec.b), "scale": scale}
    return CompressedTensor(spec, (weight.shape[0], weight.shape[1]), parts)


def decode(compressed: CompressedTensor) -> Tensor:
    """(out_features, in_features) float32."""
    rows, columns = compressed.shape
    limit = 2 ** (compressed.spec.b - 1) - 1
    levels = unpack(compressed.parts["indices"], rows * columns, compressed.spec.b) - limit
    step = compressed.parts["scale"].cpu().float()[:, None] / limit
    return levels.view(rows, columns) * step


def n_bits(spec: CodecSpec, shape: tuple[int, int]) -> int:
    """Bits of levels and scales, padding to whole bytes included."""
    rows, columns = shape
    return packed_bits(rows * columns, spec.b) + SCALE_BITS * rows
