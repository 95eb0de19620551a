"""The backend `cpu`: multiplies from the coded streams in memory, by the native library."""

import functools
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from einsort_vla.codec import CompressedTensor, Curve
from einsort_vla.errors import MissingDependency, UsageError
from einsort_vla.kernels.native import ops
from einsort_vla.kernels.native.library import library
from einsort_vla.kernels.registry import BackendSpec


@dataclass(frozen=True)
class CpuOptions:
    """Of `--backend cpu`."""

    activations: Literal["int16", "int8"] = "int16"
    """What inputs are rounded to, with a scale for each row: `int16` keeps what float32 has."""


@functools.cache
def why_unavailable() -> str | None:
    """What stands against this backend on this machine, with the fix; None if nothing does."""
    try:
        library()
    except MissingDependency as error:
        return str(error)
    return None


def decode(compressed: CompressedTensor) -> Tensor:
    """As `codec.decode` a matrix in the `curve` form; rotated, but for rounding."""
    return torch.ops.einsort.decode_curve(*_arguments(compressed))


def _arguments(compressed: CompressedTensor) -> tuple[Any, ...]:
    """Of both ops."""
    spec, parts = compressed.spec, compressed.parts
    assert isinstance(spec, Curve)
    words, scale = parts["words"].cpu().contiguous(), parts["scale"].cpu().contiguous()
    unit, columns = float(parts["unit"]), compressed.shape[1]
    return words, scale, unit, columns, spec.eighths, spec.window, spec.rotated


class CpuBackend:
    """Decodes within the product: one row in registers, else a few rows of weights at a time."""

    name = "cpu"

    def __init__(self, compressed: CompressedTensor, options: CpuOptions | None = None) -> None:
        self._arguments, self._shape = _arguments(compressed), compressed.shape
        self._matrix = ops.matrix_of(*self._arguments)
        self._bits = int((options or CpuOptions()).activations.removeprefix("int"))

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """See `Backend.linear`; inputs are rounded, and sums exact.

        Raises:
            UsageError: the input is on another device.
        """
        if x.device.type != "cpu":
            raise UsageError(f"--backend cpu computes on the CPU; the input is on {x.device}.")
        rows, columns = self._shape
        wide = None if bias is None else bias.float().contiguous()
        inputs = x.reshape(-1, columns).float()
        if torch.compiler.is_compiling() or inputs.requires_grad:
            y = torch.ops.einsort.matmul_curve(inputs, *self._arguments, wide, self._bits)
        else:  # without what the dispatcher takes, half of a small product's time
            y = ops.multiply(self._matrix, inputs, wide, self._bits)
        return y.view(*x.shape[:-1], rows).to(x.dtype)


BACKEND = BackendSpec(
    CpuBackend.name,
    {Curve.form: CpuBackend},
    why_unavailable=why_unavailable,
    options=CpuOptions,
    is_automatic=True,
    decoders={Curve.form: decode},
)
