"""Triton kernels for a matrix in the `leader` form, straight from its coded streams.

Each decodes a tile (BLOCK_K inputs, BLOCK_J slices of D outputs) into registers with float32
magnitudes. `matvec_leader` multiplies and adds in float32, for few rows of x; it is split over
inputs, and `reduce_leader` adds the parts in a fixed order. For more rows `decode_leader` stores
the matrix, for torch's own product. docs/format.md, "Decoding leader", has the bits. Streams are
int32 words with one zero word after the end. The table is read by plain loads and stays in L1:
Triton has no way to place it in shared memory by hand.
"""

# Triton reads these functions itself, so what they take is typed by it, not by Python; sizes and
# constants are in capitals, as kernels have them.
# pyright: basic, reportGeneralTypeIssues=false
# ruff: noqa: N803

import triton
import triton.language as tl


@triton.jit
def _load_word(words):
    """A word with the first bit of the stream on top; in memory its bytes are the other way."""
    word = tl.load(words).to(tl.uint32, bitcast=True)
    swapped = ((word << 8) & 0x00FF0000) | ((word >> 8) & 0x0000FF00)
    return (word << 24) | swapped | (word >> 24)


@triton.jit
def _load_bits(words, start):
    """The 32 bits of a stream from bit `start` on, the first one on top."""
    high = _load_word(words + (start >> 5))
    low = _load_word(words + (start >> 5) + 1)
    shift = (start & 31).to(tl.uint32)
    return (high << shift) | ((low >> 1) >> (31 - shift))


@triton.jit
def _load_windows(indices, k, j, n_slices, first_j, B: tl.constexpr, S: tl.constexpr):
    """(BLOCK_K, BLOCK_J) rows of the table for inputs `k` and slices `j`."""
    length = n_slices * B
    first = j * B - S
    column = k * length
    window = _load_bits(indices, column + tl.maximum(first, 0)) >> (32 - S - B)
    if first_j * B < S:
        # The stream bites its tail: before its first bit come its last ones.
        missing = tl.maximum(-first, 0)
        tail = _load_bits(indices, column + tl.maximum(length - missing, 0))
        missing = missing.to(tl.uint32)
        tail = ((tail >> 1) >> (31 - missing)) << (S + B - missing)
        window = (window >> missing) | tl.where(length >= S, tail, 0)
    return window.to(tl.int32)


@triton.jit
def _load_weights(signs, indices, table, k, first_j, N, D: tl.constexpr, B: tl.constexpr,
                  S: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_J: tl.constexpr,
                  ONE_WORD: tl.constexpr):  # fmt: skip
    """(BLOCK_K, BLOCK_J * D) float32 signed magnitudes.

    `k` (BLOCK_K,) lies within the matrix. Slices after the last are read as the last one. ONE_WORD:
    the signs of a slice never lie in two words.
    """
    n_slices = (N + D - 1) // D
    k = k[:, None]
    j = tl.minimum(first_j + tl.arange(0, BLOCK_J), n_slices - 1)[None, :]
    windows = _load_windows(indices, k, j, n_slices, first_j, B, S)
    place = tl.arange(0, D)[None, None, :]
    magnitude = tl.load(table + (windows[:, :, None] * D + place))
    start = k * N + j * D
    if ONE_WORD:
        bits = _load_word(signs + (start >> 5)) << (start & 31).to(tl.uint32)
    else:
        bits = _load_bits(signs, start)
    negative = (bits[:, :, None] << place.to(tl.uint32)) & 0x80000000
    weights = (magnitude.to(tl.uint32, bitcast=True) ^ negative).to(tl.float32, bitcast=True)
    return tl.reshape(weights, (BLOCK_K, BLOCK_J * D))


@triton.jit
def _store(total, y, scale, bias, m, n, M, N, split, IS_WHOLE: tl.constexpr,
           HAS_BIAS: tl.constexpr):  # fmt: skip
    """The finished product, or one of its parts, (BLOCK_M, BLOCK_N) at rows `m`, columns `n`."""
    here = (m < M)[:, None] & (n < N)[None, :]
    if IS_WHOLE:
        total = _finish(total, scale, bias, n, N, HAS_BIAS)
    place = (split * M + m).to(tl.int64)[:, None] * N + n[None, :]
    tl.store(y + place, total.to(y.dtype.element_ty), mask=here)


@triton.jit
def _finish(total, scale, bias, n, N, HAS_BIAS: tl.constexpr):
    total *= tl.load(scale + n, mask=n < N, other=0.0).to(tl.float32)[None, :]
    if HAS_BIAS:
        total += tl.load(bias + n, mask=n < N, other=0.0).to(tl.float32)[None, :]
    return total


@triton.jit(do_not_specialize=["M", "per_split"])
def matvec_leader(x, signs, indices, table, scale, bias, y, M, N, K, per_split,
                  D: tl.constexpr, B: tl.constexpr, S: tl.constexpr, ONE_WORD: tl.constexpr,
                  WIDE: tl.constexpr, HAS_BIAS: tl.constexpr, IS_WHOLE: tl.constexpr,
                  BLOCK_M: tl.constexpr, BLOCK_J: tl.constexpr,
                  BLOCK_K: tl.constexpr):  # fmt: skip
    """y (M, N), M <= BLOCK_M, or its parts (parts, M, N) float32. Grid: (N blocks, parts).

    Part i is of the inputs from i * per_split on. IS_WHOLE: there is one part only. WIDE: places in
    a stream need 64 bits.
    """
    first_j, split = tl.program_id(0) * BLOCK_J, tl.program_id(1)
    m = tl.arange(0, BLOCK_M)
    n = first_j * D + tl.arange(0, BLOCK_J * D)
    total = tl.zeros((BLOCK_M, BLOCK_J * D), tl.float32)
    for first in range(split * per_split, tl.minimum((split + 1) * per_split, K), BLOCK_K):
        k = first + tl.arange(0, BLOCK_K)
        inputs = tl.load(x + m[:, None] * K + k[None, :],
                         mask=(m < M)[:, None] & (k < K)[None, :], other=0.0)  # fmt: skip
        k = tl.minimum(k, K - 1)
        if WIDE:
            k = k.to(tl.int64)
        weights = _load_weights(
            signs, indices, table, k, first_j, N, D, B, S, BLOCK_K, BLOCK_J, ONE_WORD
        )
        total += tl.sum(inputs.to(tl.float32)[:, :, None] * weights[None, :, :], axis=1)
    _store(total, y, scale, bias, m, n, M, N, split, IS_WHOLE, HAS_BIAS)


@triton.jit
def decode_leader(signs, indices, table, scale, weight, N, K, D: tl.constexpr, B: tl.constexpr,
                  S: tl.constexpr, ONE_WORD: tl.constexpr, WIDE: tl.constexpr,
                  BLOCK_J: tl.constexpr, BLOCK_K: tl.constexpr):  # fmt: skip
    """weight (K, N), the transpose of the matrix with its scales. Grid: (N blocks, K blocks)."""
    first_j = tl.program_id(0) * BLOCK_J
    n = first_j * D + tl.arange(0, BLOCK_J * D)
    k = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)
    here = (k < K)[:, None] & (n < N)[None, :]
    place = k.to(tl.int64)[:, None] * N + n[None, :]
    k = tl.minimum(k, K - 1)
    if WIDE:
        k = k.to(tl.int64)
    weights = _load_weights(
        signs, indices, table, k, first_j, N, D, B, S, BLOCK_K, BLOCK_J, ONE_WORD
    )
    weights *= tl.load(scale + n, mask=n < N, other=0.0).to(tl.float32)[None, :]
    tl.store(weight + place, weights.to(weight.dtype.element_ty), mask=here)


@triton.jit(do_not_specialize=["M", "SPLIT"])
def reduce_leader(parts, scale, bias, y, M, N, SPLIT, HAS_BIAS: tl.constexpr,
                  BLOCK_N: tl.constexpr):  # fmt: skip
    """The sum y (M, N) of parts (SPLIT, M, N), times scale, plus bias. Grid: (M, N blocks)."""
    m = tl.program_id(0).to(tl.int64)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    total = tl.zeros((1, BLOCK_N), tl.float32)
    for split in range(SPLIT):
        part = parts + (split * M + m) * N
        total += tl.load(part + n[None, :], mask=(n < N)[None, :], other=0.0)
    total = _finish(total, scale, bias, n, N, HAS_BIAS)
    tl.store(y + m * N + n[None, :], total.to(y.dtype.element_ty), mask=(n < N)[None, :])
