"""The `leader` form: signs apart, magnitudes by a windowed look-up found with a Viterbi search.

Slices of d neighbouring weights run down one input column; their b index bits follow each other in
the stream. A slice is looked up by the window of its own b bits and the s bits before them (zeros
before a column begins), so that decoding is one look-up a slice, from anywhere in the stream.
Trellis-coded quantization with a shift register: Marcellin and Fischer 1990; the ties between
permuted magnitudes: Slepian 1965.
"""

import torch
from torch import Tensor
from torch.nn import functional

from einsort_vla.codec import tables
from einsort_vla.codec.packing import pack, packed_bits, unpack, unpack_bits
from einsort_vla.codec.spec import SCALE_BITS, CodecSpec
from einsort_vla.codec.tensor import CompressedTensor

COLUMNS_AT_ONCE = 1024  # bounds the memory of the search


def encode(weight: Tensor, spec: CodecSpec) -> CompressedTensor:
    """Code a finite float32 matrix, (out_features, in_features)."""
    rms = weight.square().mean(1, keepdim=True).sqrt()
    normalized = weight / rms.clamp_min(torch.finfo(torch.float32).tiny)
    lookup = table_of(spec).to(weight.device)
    slices = _slices(normalized.abs(), spec.d)  # (in_features, n_slices, d)
    if spec.is_companded:
        windows = _nearest_level(slices[..., 0], lookup[:, 0])
    else:
        blocks = slices.split(COLUMNS_AT_ONCE)
        windows = torch.cat([viterbi(block, lookup, spec.b, spec.s) for block in blocks])
    signs = (weight < 0).t()  # column by column, as the slices
    magnitude = _columns(lookup[windows], weight.shape[0])
    signed = torch.where(signs.t(), -magnitude, magnitude)
    return CompressedTensor(
        spec,
        (weight.shape[0], weight.shape[1]),
        {
            "signs": pack(signs, 1),
            "indices": pack(windows % 2**spec.b, spec.b),
            "scale": least_squares_scale(weight, signed),
        },
    )


def decode(compressed: CompressedTensor) -> Tensor:
    """(out_features, in_features) float32."""
    spec, (rows, columns), parts = compressed.spec, compressed.shape, compressed.parts
    n_slices = -(-rows // spec.d)
    if spec.s:
        stream = unpack_bits(parts["indices"], columns * n_slices * spec.b)
        padded = functional.pad(stream.view(columns, -1), (spec.s, 0))
        place = 2 ** torch.arange(spec.s + spec.b - 1, -1, -1)
        windows = (padded.unfold(1, spec.s + spec.b, spec.b).to(torch.int64) * place).sum(-1)
    else:
        windows = unpack(parts["indices"], columns * n_slices, spec.b).view(columns, n_slices)
    magnitude = _columns(table_of(spec)[windows], rows)
    signs = unpack_bits(parts["signs"], rows * columns).view(columns, rows).t()
    return torch.where(signs.bool(), -magnitude, magnitude) * parts["scale"].cpu().float()[:, None]


def n_bits(spec: CodecSpec, shape: tuple[int, int]) -> int:
    """Bits of signs, indices and scales, padding to whole bytes included."""
    rows, columns = shape
    indices = packed_bits(columns * -(-rows // spec.d), spec.b)
    return packed_bits(rows * columns, 1) + indices + SCALE_BITS * rows


def table_of(spec: CodecSpec) -> Tensor:
    """(2^(s+b), d) float32 magnitudes for unit variance."""
    if spec.is_companded:
        return tables.companded_grid(spec.b)
    return tables.table(*spec.window).float()


def viterbi(slices: Tensor, lookup: Tensor, b: int, s: int) -> Tensor:
    """The windows of least squared error down each column.

    Args:
        slices: (n_columns, n_slices, d) magnitudes.
        lookup: (2^(s+b), d) table; row = state * 2^b + own bits.
        b: bits a slice adds.
        s: bits of memory; the first slice of a column starts from state 0.

    Returns:
        (n_columns, n_slices) int64 windows; each is the last one's low s bits and b new ones.
    """
    n_columns, n_slices, _ = slices.shape
    n_states, n_choices = 2**s, 2**b
    energy = lookup.square().sum(1)
    cost = torch.full((n_columns, n_states), torch.inf, device=slices.device)
    cost[:, 0] = 0
    dropped = torch.empty(n_slices, n_columns, n_states, dtype=torch.uint8, device=slices.device)
    for t in range(n_slices):
        error = torch.addmm(energy, slices[:, t], lookup.t(), alpha=-2)
        error.view(n_columns, n_states, n_choices).add_(cost[:, :, None])
        # A window's next state is its low s bits; its high b bits are what the minimum is over.
        cost, choice = error.view(n_columns, n_choices, n_states).min(1)
        dropped[t] = choice
    windows = torch.empty(n_columns, n_slices, dtype=torch.int64, device=slices.device)
    state = cost.argmin(1)
    for t in range(n_slices - 1, -1, -1):
        high = dropped[t].gather(1, state[:, None])[:, 0].to(torch.int64)
        windows[:, t] = high * n_states + state
        state = windows[:, t] >> b
    return windows


def least_squares_scale(weight: Tensor, signed: Tensor) -> Tensor:
    """(out_features,) float16: the row scale of least squared error for a coded matrix."""
    energy = signed.square().sum(1).clamp_min(torch.finfo(torch.float32).tiny)
    return ((weight * signed).sum(1) / energy).to(torch.float16)


def _nearest_level(magnitude: Tensor, levels: Tensor) -> Tensor:
    return torch.bucketize(magnitude.contiguous(), (levels[1:] + levels[:-1]) / 2)


def _slices(magnitude: Tensor, d: int) -> Tensor:
    """(rows, columns) to (columns, ceil(rows / d), d), zeros after the last row."""
    padded = functional.pad(magnitude.t(), (0, -len(magnitude) % d))
    return padded.reshape(magnitude.shape[1], -1, d)


def _columns(slices: Tensor, rows: int) -> Tensor:
    """(columns, n_slices, d) to (rows, columns)."""
    return slices.flatten(1)[:, :rows].t()
