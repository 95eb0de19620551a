"""`einsort::matmul_leader_triton`: what is launched for a matrix in the `leader` form."""

import functools
import os
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

# Rows from which the whole matrix is decoded first, for torch's product.
DECODE_FROM = 17
DECODE_BLOCK = (128, 16)  # outputs, inputs
WAVES = 4  # programs for each multiprocessor that a launch aims at, by splitting over inputs
REDUCE_BLOCK = 256
WIDE_BITS = 2**31  # places in a longer stream need 64 bits

# Not `custom_op`: in inference mode it keeps its inputs alive in a reference cycle.
LIBRARY = torch.library.Library("einsort", "FRAGMENT")
LIBRARY.define(
    "matmul_leader_triton(Tensor x, Tensor signs, Tensor indices, Tensor table, Tensor scale, "
    "Tensor? bias, int d, int b, int s) -> Tensor"
)


@torch.library.impl(LIBRARY, "matmul_leader_triton", "CompositeExplicitAutograd")
def matmul_leader(
    x: Tensor, signs: Tensor, indices: Tensor, table: Tensor, scale: Tensor, bias: Tensor | None,
    d: int, b: int, s: int,
) -> Tensor:  # fmt: skip
    """x times the transpose of a matrix in the `leader` form, plus a bias.

    Args:
        x: (m, in_features) float32, float16 or bfloat16.
        signs: words of its bit plane; see `to_words`. Likewise `indices`.
        table: as for `cpu.ops.matmul_leader`; likewise `d`, `b` and `s`.
        scale: (out_features,) float16.
        bias: (out_features,) or None.

    Returns:
        (m, out_features) in the type of x; sums are in float32.
    """
    matrix = (signs, indices, table, scale)
    with torch.cuda.device_of(x):  # Triton launches on the current GPU, wherever x is
        if not (x.shape[0] and len(scale)):
            return x.new_empty(x.shape[0], len(scale))
        if x.shape[0] < DECODE_FROM:
            return _multiply(x.contiguous(), matrix, bias, d, b, s)
        weight = _decode(x, matrix, d, b, s)
        return x @ weight if bias is None else torch.addmm(bias, x, weight)


def _multiply(
    x: Tensor, matrix: tuple[Tensor, ...], bias: Tensor | None, d: int, b: int, s: int
) -> Tensor:
    signs, indices, table, scale = matrix
    kernel, (m, k), n = kernels(), x.shape, len(scale)
    block_m, block_n, block_k = blocks(m)
    per_split = _per_split(k, block_k, _n_programs(x.device), _ceil(n, block_n))
    split, y = _ceil(k, per_split), x.new_empty(m, n)
    parts = y if split == 1 else x.new_empty(split, m, n, dtype=torch.float32)
    kernel.matvec_leader[(_ceil(n, block_n), split)](
        x, signs, indices, table, scale, bias, parts, m, n, k, per_split,
        **_constants(matrix, d, b, s), HAS_BIAS=bias is not None, IS_WHOLE=split == 1,
        BLOCK_M=block_m, BLOCK_J=block_n // d, BLOCK_K=block_k,
    )  # fmt: skip
    if split > 1:
        kernel.reduce_leader[(m, _ceil(n, REDUCE_BLOCK))](
            parts, scale, bias, y, m, n, split, HAS_BIAS=bias is not None, BLOCK_N=REDUCE_BLOCK
        )
    return y


def _decode(x: Tensor, matrix: tuple[Tensor, ...], d: int, b: int, s: int) -> Tensor:
    """(in_features, out_features) in the type of x."""
    k, n, (block_n, block_k) = x.shape[1], len(matrix[-1]), DECODE_BLOCK
    weight = x.new_empty(k, n)
    kernels().decode_leader[(_ceil(n, block_n), _ceil(k, block_k))](
        *matrix, weight, n, k, **_constants(matrix, d, b, s), BLOCK_J=block_n // d, BLOCK_K=block_k
    )
    return weight


def _constants(matrix: tuple[Tensor, ...], d: int, b: int, s: int) -> dict[str, int]:
    signs, indices, _, scale = matrix
    wide = 32 * max(len(signs), len(indices)) >= WIDE_BITS
    return {"D": d, "B": b, "S": s, "ONE_WORD": len(scale) % d == 0, "WIDE": wide}


@torch.library.register_fake("einsort::matmul_leader_triton", lib=LIBRARY)
def _(x: Tensor, signs: Tensor, indices: Tensor, table: Tensor, scale: Tensor, bias: Tensor | None,
      d: int, b: int, s: int) -> Tensor:  # fmt: skip
    return x.new_empty(x.shape[0], scale.shape[0])


@functools.cache
def kernels() -> ModuleType:
    """The module `kernel`, for which Triton must be there, with an assembler for every GPU.

    NOTE: Triton 3.6 assembles by CUDA 12.9, where Thor's sm_110 has another name; torch's wheels
    for CUDA 13 have an assembler that knows it. Whoever set another keeps it.
    """
    assembler = Path(torch.__file__).with_name("bin") / "ptxas"
    if (torch.version.cuda or "").startswith("13.") and assembler.is_file():
        os.environ.setdefault("TRITON_PTXAS_BLACKWELL_PATH", str(assembler))
    from einsort_vla.kernels.triton import kernel

    return kernel


def blocks(m: int) -> tuple[int, int, int]:
    """BLOCK_M, BLOCK_N and BLOCK_K for `m` rows, by multiply-add.

    Chosen by registers without spills (ptxas, sm_80 to sm_120), not by time on a GPU.
    """
    block_m = 1 << (m - 1).bit_length()
    return block_m, 128, 16 if block_m <= 4 else 8


def _per_split(k: int, block_k: int, n_programs: int, n_blocks: int) -> int:
    """Inputs of one program, a multiple of `block_k`: fewer blocks, more parts."""
    split = max(1, min(n_programs // n_blocks, _ceil(k, block_k)))
    return _ceil(_ceil(k, split), block_k) * block_k


@functools.cache
def _n_programs(device: torch.device) -> int:
    if device.type != "cuda":
        return WAVES  # Triton's interpreter
    return WAVES * torch.cuda.get_device_properties(device).multi_processor_count


def _ceil(n: int, block: int) -> int:
    return -(-n // block)
