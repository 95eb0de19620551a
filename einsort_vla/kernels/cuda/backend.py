"""Multiplication from the coded streams on a GPU, by kernels in CUDA C++."""

import ctypes
import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.jit import is_tracing  # pyright: ignore[reportPrivateImportUsage]  documented
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from einsort_vla.codec import CompressedTensor, Curve
from einsort_vla.codec.rotation import unrotate
from einsort_vla.errors import EinSortError, MissingDependency, ShapeError, UsageError
from einsort_vla.kernels import hadamard  # noqa: F401  registers the op
from einsort_vla.kernels.cuda import build
from einsort_vla.kernels.cuda.build import Matrix

LEAST_CAPABILITY = (8, 0)
# Of activations, by their numbers in EinsortType of launch.h.
TYPE_NUMBERS = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
# Rows from which it is faster to decode the matrix once, for cuBLAS, than tiles of it within the
# product: an estimate (docs/performance.md).
DECODE_FROM = 257

# Not `custom_op`: in inference mode it keeps its inputs alive in a reference cycle.
LIBRARY = torch.library.Library("einsort", "FRAGMENT")
LIBRARY.define(
    "matmul_curve_cuda(Tensor x, Tensor words, Tensor scale, float unit, int eighths, int window, "
    "int decode_from) -> Tensor"
)
LIBRARY.define(
    "decode_curve_cuda(Tensor words, Tensor scale, float unit, int columns, int eighths, "
    "int window) -> Tensor"
)


@torch.library.impl(LIBRARY, "matmul_curve_cuda", "CUDA")
def matmul_curve(
    x: Tensor, words: Tensor, scale: Tensor, unit: float, eighths: int, window: int,
    decode_from: int,
) -> Tensor:  # fmt: skip
    """x times the transpose of a matrix in the `curve` form, all on one GPU.

    Args:
        x: (m, in_features) float32, float16 or bfloat16.
        words: the streams, int16; they begin at a multiple of 8 bytes.
        scale: (out_features,) uint8 steps.
        unit: what steps are counted from.
        eighths: of a bit a weight.
        window: bits.
        decode_from: from so many rows on the whole matrix is decoded first, in the type of x.

    Returns:
        (m, out_features) in the type of x; sums are in float32.

    Raises:
        ShapeError: the words do not fit the shape, or there is no such code.
        EinSortError: the driver refuses; the message has its words.
    """
    return multiply(matrix_of(words, scale, unit, x.shape[1], eighths, window), x, decode_from)


def multiply(matrix: Matrix, x: Tensor, decode_from: int) -> Tensor:
    """`matmul_curve` with a matrix whose parts somebody keeps."""
    if x.get_device() != torch.cuda.current_device():
        with torch.cuda.device(x.device):
            return multiply(matrix, x, decode_from)
    if x.shape[0] >= decode_from:
        return torch.mm(x, _decode(matrix, x.dtype, x.device).t())
    launcher, kind, m = _launcher(matrix.eighths), TYPE_NUMBERS[x.dtype], x.shape[0]
    x, y = x.contiguous(), x.new_empty(m, matrix.n)
    workspace = _workspace(matrix, m, x.dtype, x.device)
    failed = launcher.einsort_matmul_curve(
        ctypes.byref(matrix), x.data_ptr(), y.data_ptr(), m, kind, workspace.data_ptr(),
        torch.cuda.current_stream().cuda_stream,
    )  # fmt: skip
    if failed:
        raise EinSortError(f"--backend cuda: {_last_error(launcher)}")
    return y


def _workspace(matrix: Matrix, m: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """For a product with m rows, or decoding, if m is 0."""
    shape = matrix.n, matrix.k, matrix.eighths, matrix.window
    n_bytes = _workspace_bytes(*shape, m, TYPE_NUMBERS[dtype])
    return torch.empty(n_bytes, dtype=torch.uint8, device=device)


@functools.lru_cache(maxsize=1024)
def _workspace_bytes(n: int, k: int, eighths: int, window: int, m: int, kind: int) -> int:
    matrix = Matrix(n=n, k=k, eighths=eighths, window=window)
    return max(_launcher(eighths).einsort_workspace_bytes(ctypes.byref(matrix), m, kind), 0)


@torch.library.register_fake("einsort::matmul_curve_cuda", lib=LIBRARY)
def _(x: Tensor, words: Tensor, scale: Tensor, unit: float, eighths: int, window: int,
      decode_from: int) -> Tensor:  # fmt: skip
    return x.new_empty(x.shape[0], scale.shape[0])


@torch.library.impl(LIBRARY, "decode_curve_cuda", "CUDA")
def decode_curve(
    words: Tensor, scale: Tensor, unit: float, columns: int, eighths: int, window: int
) -> Tensor:
    """The matrix itself, (out_features, in_features) float32; see `matmul_curve`."""
    with torch.cuda.device(words.device):
        return _decode(
            matrix_of(words, scale, unit, columns, eighths, window), torch.float32, words.device
        )


@torch.library.register_fake("einsort::decode_curve_cuda", lib=LIBRARY)
def _(words: Tensor, scale: Tensor, unit: float, columns: int, eighths: int,
      window: int) -> Tensor:  # fmt: skip
    return scale.new_empty(scale.shape[0], columns, dtype=torch.float32)


def _decode(matrix: Matrix, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(n, k), on the current device."""
    weight = torch.empty(matrix.n, matrix.k, dtype=dtype, device=device)
    launcher, workspace = _launcher(matrix.eighths), _workspace(matrix, 0, dtype, device)
    if launcher.einsort_decode_curve(
        ctypes.byref(matrix), weight.data_ptr(), TYPE_NUMBERS[dtype], workspace.data_ptr(),
        torch.cuda.current_stream().cuda_stream,
    ):  # fmt: skip
        raise EinSortError(f"--backend cuda: {_last_error(launcher)}")
    return weight


def matrix_of(
    words: Tensor, scale: Tensor, unit: float, columns: int, eighths: int, window: int
) -> Matrix:
    """What the launcher is told of a matrix; it lives as long as its parts are kept.

    Raises:
        ShapeError: the words do not fit the shape, or there is no such code.
    """
    matrix = Matrix(
        words.data_ptr(), scale.data_ptr(), len(scale), columns, unit, eighths, window
    )  # fmt: skip
    launcher = _launcher(0)
    n_words = launcher.einsort_count_words(ctypes.byref(matrix))
    if n_words != words.numel():
        found = f"it has {words.numel()} words and must have {n_words}"
        raise ShapeError(
            "a matrix in the curve form cannot be read: "
            + (_last_error(launcher) if n_words < 0 else f"{found}.")
        )
    return matrix


def _arguments(compressed: CompressedTensor, device: torch.device) -> tuple[Tensor, Tensor, float]:
    """Words, scale and unit of both ops, on a device."""
    words, scale = (compressed.parts[name].to(device).contiguous() for name in ("words", "scale"))
    if words.data_ptr() % 8:  # a part of another tensor
        words = words.clone()
    return words, scale, float(compressed.parts["unit"])


def decode(compressed: CompressedTensor) -> Tensor:
    """As `codec.decode` a matrix in the `curve` form whose parts are on a GPU."""
    spec = compressed.spec
    assert isinstance(spec, Curve)
    words, scale, unit = _arguments(compressed, compressed.parts["words"].device)
    columns = compressed.shape[1]
    weight = torch.ops.einsort.decode_curve_cuda(
        words, scale, unit, columns, spec.eighths, spec.window
    )
    return unrotate(weight) if spec.rotated else weight


@functools.cache
def why_unavailable() -> str | None:
    """What stands against this backend on this machine, with the fix; None if nothing does."""
    if not torch.cuda.is_available():
        return "there is no CUDA device: torch sees none; use --backend cpu"
    found = _capabilities()
    least = min(found)
    if least < LEAST_CAPABILITY:
        i = found.index(least)
        return (
            f"compute capability {_text(LEAST_CAPABILITY)} is needed, and "
            f"{torch.cuda.get_device_name(i)} (cuda:{i}) has {_text(least)}; hide it by "
            "CUDA_VISIBLE_DEVICES, or use --backend decoded"
        )
    try:
        _launcher(0)
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


class CudaBackend:
    """Decodes within the product, or for many rows before it; only the coded matrix is kept.

    It needs NVRTC and a C++ compiler, and keeps what they make.
    """

    name = "cuda"

    def __init__(self, compressed: CompressedTensor, options: CudaOptions) -> None:
        assert isinstance(compressed.spec, Curve)
        self._compressed, self._spec, self._options = compressed, compressed.spec, options
        self._device: torch.device | None = None
        if compressed.parts["words"].is_cuda:
            self._prepare(compressed.parts["words"].device)

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """See `Backend.linear`; sums are in another order than those of `nn.Linear`.

        Raises:
            UsageError: the input is not on a GPU, or of another type than `TYPE_NUMBERS`.
        """
        check_input(x)
        if x.device != self._device:
            self._prepare(x.device)
        rows, columns = self._compressed.shape
        inputs = x if x.dim() == 2 else x.reshape(math.prod(x.shape[:-1]), columns)
        if self._spec.rotated:
            inputs = torch.ops.einsort.hadamard(inputs)
        if _is_watched(inputs):
            y = torch.ops.einsort.matmul_curve_cuda(
                inputs, *self._parts, self._spec.eighths, self._spec.window,
                self._options.decode_from,
            )  # fmt: skip
        else:
            y = multiply(self._matrix, inputs, self._options.decode_from)
        if bias is not None:
            y += bias
        return y if x.dim() == 2 else y.view(*x.shape[:-1], rows)

    def _prepare(self, device: torch.device) -> None:
        """Bring the matrix to a device."""
        self._parts, spec = _arguments(self._compressed, device), self._spec
        columns = self._compressed.shape[1]
        self._matrix = matrix_of(*self._parts, columns, spec.eighths, spec.window)
        self._device = device


def check_input(x: Tensor) -> None:
    """Refuse an input that the kernels do not take.

    Raises:
        UsageError: it is not on a GPU, or of another type than `TYPE_NUMBERS`.
    """
    if not x.is_cuda or x.dtype not in TYPE_NUMBERS:
        raise UsageError(
            "--backend cuda computes in float32, float16 or bfloat16 on a GPU; the input is "
            f"{x.dtype} on {x.device}."
        )


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
def _launcher(eighths: int) -> ctypes.CDLL:
    """With the kernels of a code, for the GPUs here; 0 is none, which needs the least time."""
    sms = tuple(sorted({10 * major + minor for major, minor in _capabilities()}))
    return build.library(sms, (eighths,) if eighths else ())


def _last_error(launcher: ctypes.CDLL) -> str:
    return launcher.einsort_last_error().decode()


def _capabilities() -> list[tuple[int, int]]:
    """Of every GPU that torch sees."""
    return [torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())]


def _text(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))
