"""Multiplication from the coded streams on a GPU, by kernels in CUDA C++."""

import ctypes
import functools
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.jit import is_tracing  # pyright: ignore[reportPrivateImportUsage]  documented
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from einsort_vla.codec import CompressedTensor
from einsort_vla.errors import EinSortError, MissingDependency, UsageError
from einsort_vla.kernels.cuda import build
from einsort_vla.kernels.gpu import TYPES, GpuBackend, capabilities, why_unsuitable

TYPE_NUMBERS = {dtype: i for i, dtype in enumerate(TYPES)}  # EinsortType of launch.h

# Not `custom_op`: in inference mode it keeps its inputs alive in a reference cycle.
LIBRARY = torch.library.Library("einsort", "FRAGMENT")
LIBRARY.define(
    "matmul_leader_cuda(Tensor x, Tensor signs, Tensor indices, Tensor table, Tensor scale, "
    "int d, int b, int s, int decode_from) -> Tensor"
)
# Rows from which it is faster to decode the matrix once, for cuBLAS, than tiles of it within the
# product: an estimate (docs/performance.md).
DECODE_FROM = 17


@torch.library.impl(LIBRARY, "matmul_leader_cuda", "CUDA")
def matmul_leader(
    x: Tensor, signs: Tensor, indices: Tensor, table: Tensor, scale: Tensor, d: int, b: int, s: int,
    decode_from: int,
) -> Tensor:  # fmt: skip
    """x times the transpose of a matrix in the `leader` form, all on one GPU.

    Args:
        x: (m, in_features) float32, float16 or bfloat16.
        signs: words of its bit plane; see `to_words`. Likewise `indices`.
        table: as for `cpu.ops.matmul_leader`; likewise `d`, `b` and `s`.
        scale: (out_features,) float16.
        decode_from: from so many rows on the whole matrix is decoded first, in the type of x.

    Returns:
        (m, out_features) in the type of x; sums are in float32.

    Raises:
        EinSortError: the driver refuses; the message has its words.
    """
    if x.get_device() != torch.cuda.current_device():
        with torch.cuda.device(x.device):
            return matmul_leader(x, signs, indices, table, scale, d, b, s, decode_from)
    matrix = signs.data_ptr(), indices.data_ptr(), table.data_ptr(), scale.data_ptr()
    launch = _decode_and_multiply if x.shape[0] >= decode_from else _multiply_coded
    y = launch(x, matrix, scale.shape[0], d, b, s)
    if y is None:
        raise EinSortError(f"--backend cuda: {build.library(_sms()).einsort_last_error().decode()}")
    return y


def _decode_and_multiply(
    x: Tensor, matrix: tuple[int, ...], n: int, d: int, b: int, s: int
) -> Tensor | None:
    """The whole matrix in the type of x, for cuBLAS; None if the driver refuses."""
    k, stream = x.shape[1], torch.cuda.current_stream().cuda_stream
    weight = x.new_empty(k, n)
    failed = build.library(_sms()).einsort_decode_leader(
        *matrix, weight.data_ptr(), k, n, d, b, s, TYPE_NUMBERS[x.dtype], stream
    )
    return None if failed else torch.mm(x, weight)


def _multiply_coded(
    x: Tensor, matrix: tuple[int, ...], n: int, d: int, b: int, s: int
) -> Tensor | None:
    """Tiles of the matrix are decoded within the product; None if the driver refuses."""
    (m, k), kind, launcher = x.shape, TYPE_NUMBERS[x.dtype], build.library(_sms())
    x, y = x.contiguous(), x.new_empty(m, n)
    workspace = x.new_empty(_workspace_bytes(launcher, m, k, n, kind), dtype=torch.uint8)
    failed = launcher.einsort_matmul_leader(
        x.data_ptr(), *matrix, y.data_ptr(), m, k, n, d, b, s, kind, workspace.data_ptr(),
        torch.cuda.current_stream().cuda_stream,
    )  # fmt: skip
    return None if failed else y


@functools.lru_cache(maxsize=1024)
def _workspace_bytes(launcher: ctypes.CDLL, m: int, k: int, n: int, kind: int) -> int:
    return max(launcher.einsort_workspace_bytes(m, k, n, kind), 0)


@torch.library.register_fake("einsort::matmul_leader_cuda", lib=LIBRARY)
def _(x: Tensor, signs: Tensor, indices: Tensor, table: Tensor, scale: Tensor,
      d: int, b: int, s: int, decode_from: int) -> Tensor:  # fmt: skip
    return x.new_empty(x.shape[0], scale.shape[0])


@functools.cache
def why_unavailable() -> str | None:
    """What stands against this backend on this machine, with the fix; None if nothing does."""
    if reason := why_unsuitable():
        return reason
    try:
        build.library(_sms())
    except MissingDependency as error:
        return str(error)
    return None


@dataclass(frozen=True)
class CudaOptions:
    """What can be set of the backend `cuda`.

    Raises:
        UsageError: there is no such number of rows.
    """

    decode_from: int = DECODE_FROM
    """Rows of an input from which the matrix is decoded first, whole, for that call only."""

    def __post_init__(self) -> None:
        if self.decode_from < 1:
            raise UsageError(
                f"--backend cuda: decode_from={self.decode_from} must be a number of rows, from 1."
            )


class CudaBackend(GpuBackend):
    """See `GpuBackend`; it needs NVRTC and a C++ compiler, and keeps what they make."""

    name = "cuda"

    def __init__(self, compressed: CompressedTensor, options: CudaOptions) -> None:
        super().__init__(compressed)
        self._options = options

    def multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        matmul = torch.ops.einsort.matmul_leader_cuda if _is_watched(x) else matmul_leader
        y = matmul(x, *self.matrix, *self._spec.window, self._options.decode_from)
        if bias is not None:
            y += bias
        return y


def _is_watched(x: Tensor) -> bool:
    """Whether anyone must see the op: a compiler, a tracer, autograd, or a kind of tensor.

    Without them the way through torch's dispatcher, some microseconds, is not needed.
    """
    return (
        type(x) is not Tensor
        or (x.requires_grad and torch.is_grad_enabled())
        or torch.compiler.is_compiling()
        or is_tracing()
        or is_in_torch_dispatch_mode()
    )


@functools.cache
def _sms() -> tuple[int, ...]:
    """Of the GPUs here."""
    return tuple(sorted({10 * major + minor for major, minor in capabilities()}))
