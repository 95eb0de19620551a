"""Multiplication from the coded streams on a GPU, by kernels in CUDA C++."""

import ctypes
import functools
import math

import torch
from torch import Tensor
from torch.jit import is_tracing  # pyright: ignore[reportPrivateImportUsage]  documented
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from einsort_vla.codec import CompressedTensor, Leader
from einsort_vla.errors import EinSortError, MissingDependency
from einsort_vla.kernels import hadamard  # noqa: F401  registers the op
from einsort_vla.kernels.cuda import build
from einsort_vla.kernels.gpu import TYPES, capabilities, check_input, why_unsuitable
from einsort_vla.kernels.words import to_words

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
        signs: words of its bit plane; see `to_words`.
        indices: words of its index stream.
        table: (2^(s+b), d) float32 magnitudes.
        scale: (out_features,) float16.
        d: weights a slice.
        b: index bits a slice.
        s: bits of the window before them.
        decode_from: from so many rows on the whole matrix is decoded first, in the type of x.

    Returns:
        (m, out_features) in the type of x; sums are in float32.

    Raises:
        EinSortError: the driver refuses; the message has its words.
    """
    if x.get_device() != torch.cuda.current_device():
        with torch.cuda.device(x.device):
            return matmul_leader(x, signs, indices, table, scale, d, b, s, decode_from)
    (m, k), n, kind = x.shape, scale.shape[0], TYPE_NUMBERS[x.dtype]
    launcher = build.library(_sms())
    stream = torch.cuda.current_stream().cuda_stream
    matrix = signs.data_ptr(), indices.data_ptr(), table.data_ptr(), scale.data_ptr()
    if m >= decode_from:
        weight = x.new_empty(k, n)
        failed = launcher.einsort_decode_leader(
            *matrix, weight.data_ptr(), k, n, d, b, s, kind, stream
        )
        y = x if failed else torch.mm(x, weight)
    else:
        x, y = x.contiguous(), x.new_empty(m, n)
        workspace = x.new_empty(_workspace_bytes(launcher, m, k, n, kind), dtype=torch.uint8)
        failed = launcher.einsort_matmul_leader(
            x.data_ptr(), *matrix, y.data_ptr(), m, k, n, d, b, s, kind,
            workspace.data_ptr(), stream,
        )  # fmt: skip
    if failed:
        raise EinSortError(f"--backend cuda: {launcher.einsort_last_error().decode()}")
    return y


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


class CudaBackend:
    """Decodes within the product, or for many rows before it; only the coded matrix is kept.

    Raises:
        MissingDependency: there is no GPU that will do, no NVRTC, no C++ compiler, or nowhere to
            keep what they make.
    """

    name = "cuda"
    decode_from = DECODE_FROM
    """Rows of an input from which the matrix is decoded first, whole, for that call only."""

    def __init__(self, compressed: CompressedTensor) -> None:
        if reason := why_unavailable():
            raise MissingDependency(f"--backend cuda: {reason}")
        assert isinstance(compressed.spec, Leader)
        self._compressed, self._spec = compressed, compressed.spec
        self._device: torch.device | None = None
        if compressed.parts["signs"].is_cuda:
            self._prepare(compressed.parts["signs"].device)

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """See `Backend.linear`; sums are in another order than those of `nn.Linear`.

        Raises:
            UsageError: the input is not on a GPU, or of another type.
        """
        check_input(x, self.name)
        if x.device != self._device:
            self._prepare(x.device)
        rows, columns = self._compressed.shape
        inputs = x if x.dim() == 2 else x.reshape(math.prod(x.shape[:-1]), columns)
        if self._spec.rotated:
            inputs = torch.ops.einsort.hadamard(inputs)
        multiply = torch.ops.einsort.matmul_leader_cuda if _is_watched(x) else matmul_leader
        y = multiply(inputs, *self._matrix, self.decode_from)
        if bias is not None:
            y += bias
        return y if x.dim() == 2 else y.view(*x.shape[:-1], rows)

    def _prepare(self, device: torch.device) -> None:
        parts = {name: part.to(device) for name, part in self._compressed.parts.items()}
        table = parts["table"].float() if self._spec.refined else _table(self._spec, device)
        streams = to_words(parts["signs"]), to_words(parts["indices"])
        tensors = (*streams, table.contiguous(), parts["scale"].contiguous())
        self._matrix = (*tensors, *self._spec.window)
        self._device = device


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


@functools.cache  # one table for all layers
def _table(spec: Leader, device: torch.device) -> Tensor:
    return spec.table().float().to(device)


@functools.cache
def _sms() -> tuple[int, ...]:
    """Of the GPUs here."""
    return tuple(sorted({10 * major + minor for major, minor in capabilities()}))
