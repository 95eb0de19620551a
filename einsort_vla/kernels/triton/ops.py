"""`einsort::matmul_leader_triton`: what is launched for a matrix in the `leader` form."""

import functools
import os
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

MATVEC_ROWS = 16  # up to so many rows are multiplied by multiply-add, more by tensor cores
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
        signs: words of its bit plane; see `to_words`.
        indices: words of its index stream.
        table: (2^(s+b), d) float32 magnitudes.
        scale: (out_features,) float16.
        bias: (out_features,) or None.
        d: weights a slice.
        b: index bits a slice.
        s: bits of the window before them.

    Returns:
        (m, out_features) in the type of x; sums are in float32.
    """
    kernel = kernels()
    (m, k), n = x.shape, len(scale)
    y = x.new_empty(m, n)
    if not (m and n):
        return y
    block_m, block_n, block_k, n_warps = blocks(m, x.dtype)
    n_blocks = (_ceil(n, block_n),) if m <= MATVEC_ROWS else (_ceil(m, block_m), _ceil(n, block_n))
    per_split = _per_split(k, block_k, _n_programs(x.device), *n_blocks)
    split = _ceil(k, per_split)
    product = kernel.matvec_leader if m <= MATVEC_ROWS else kernel.matmul_leader
    parts = y if split == 1 else x.new_empty(split, m, n, dtype=torch.float32)
    with torch.cuda.device_of(x):  # Triton launches on the current GPU, wherever x is
        product[(*n_blocks, split)](
            x.contiguous(), signs, indices, table, scale, bias, parts, m, n, k, per_split,
            D=d, B=b, S=s, ONE_WORD=n % d == 0,
            WIDE=32 * max(len(signs), len(indices)) >= WIDE_BITS, HAS_BIAS=bias is not None,
            IS_WHOLE=split == 1, BLOCK_M=block_m, BLOCK_J=block_n // d, BLOCK_K=block_k,
            num_warps=n_warps,
        )  # fmt: skip
        if split > 1:
            kernel.reduce_leader[(m, _ceil(n, REDUCE_BLOCK))](
                parts, scale, bias, y, m, n, split, HAS_BIAS=bias is not None, BLOCK_N=REDUCE_BLOCK
            )
    return y


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


def blocks(m: int, dtype: torch.dtype) -> tuple[int, int, int, int]:
    """BLOCK_M, BLOCK_N, BLOCK_K and warps for `m` rows.

    Chosen by registers without spills (ptxas, sm_80 to sm_120), not by time on a GPU.
    """
    if m <= MATVEC_ROWS:
        block_m = 1 << (m - 1).bit_length()
        return block_m, 128, 16 if block_m <= 4 else 8, 4
    if dtype == torch.float32 or m <= 64:
        return 32 if m <= 32 else 64, 64, 32, 4
    return 128, 128, 32, 8


def _per_split(k: int, block_k: int, n_programs: int, *n_blocks: int) -> int:
    """Inputs of one program, a multiple of `block_k`: fewer blocks, more parts."""
    n_tiles = functools.reduce(int.__mul__, n_blocks)
    split = max(1, min(n_programs // n_tiles, _ceil(k, block_k)))
    return _ceil(_ceil(k, split), block_k) * block_k


@functools.cache
def _n_programs(device: torch.device) -> int:
    if device.type != "cuda":
        return WAVES  # Triton's interpreter
    return WAVES * torch.cuda.get_device_properties(device).multi_processor_count


def _ceil(n: int, block: int) -> int:
    return -(-n // block)
