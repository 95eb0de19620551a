"""Multiplication from the coded streams on a GPU, by kernels in CUDA C++."""

import functools
import math

import torch
from torch import Tensor

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
    "int d, int b, int s) -> Tensor"
)


@torch.library.impl(LIBRARY, "matmul_leader_cuda", "CUDA")
def matmul_leader(
    x: Tensor, signs: Tensor, indices: Tensor, table: Tensor, scale: Tensor, d: int, b: int, s: int
) -> Tensor:
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

    Returns:
        (m, out_features) in the type of x; sums are in float32.

    Raises:
        EinSortError: the driver refuses; the message has its words.
    """
    (m, k), n, kind = x.shape, len(scale), TYPE_NUMBERS[x.dtype]
    y = x.new_empty(m, n)
    with torch.cuda.device(x.device):
        launcher = build.library(_sms())
        size = launcher.einsort_workspace_bytes(m, k, n, kind)
        workspace = x.new_empty(max(size, 0), dtype=torch.uint8)
        tensors = (x.contiguous(), signs, indices, table, scale, y)
        failed = launcher.einsort_matmul_leader(
            *(tensor.data_ptr() for tensor in tensors), m, k, n, d, b, s, kind,
            workspace.data_ptr(), torch.cuda.current_stream().cuda_stream,
        )  # fmt: skip
    if failed:
        raise EinSortError(f"--backend cuda: {launcher.einsort_last_error().decode()}")
    return y


@torch.library.register_fake("einsort::matmul_leader_cuda", lib=LIBRARY)
def _(x: Tensor, signs: Tensor, indices: Tensor, table: Tensor, scale: Tensor,
      d: int, b: int, s: int) -> Tensor:  # fmt: skip
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
    """Decodes within the product; no matrix is stored but the coded one.

    Raises:
        MissingDependency: there is no GPU that will do, no NVRTC, no C++ compiler, or nowhere to
            keep what they make.
    """

    name = "cuda"

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
        inputs = x.reshape(math.prod(x.shape[:-1]), columns)
        if self._spec.rotated:
            inputs = torch.ops.einsort.hadamard(inputs)
        y = torch.ops.einsort.matmul_leader_cuda(inputs, *self._streams, *self._spec.window)
        if bias is not None:
            y += bias
        return y.view(*x.shape[:-1], rows)

    def _prepare(self, device: torch.device) -> None:
        parts = {name: part.to(device) for name, part in self._compressed.parts.items()}
        table = parts["table"].float() if self._spec.refined else _table(self._spec, device)
        streams = to_words(parts["signs"]), to_words(parts["indices"])
        self._streams = (*streams, table.contiguous(), parts["scale"].contiguous())
        self._device = device


@functools.cache  # one table for all layers
def _table(spec: Leader, device: torch.device) -> Tensor:
    return spec.table().float().to(device)


@functools.cache
def _sms() -> tuple[int, ...]:
    """Of the GPUs here."""
    return tuple(sorted({10 * major + minor for major, minor in capabilities()}))
