"""Multiplication from the coded streams on a CPU."""

import torch
from torch import Tensor

from einsort_vla.codec import CompressedTensor, Leader
from einsort_vla.codec.rotation import rotate
from einsort_vla.errors import UsageError
from einsort_vla.kernels.cpu import ops  # noqa: F401  registers the op
from einsort_vla.kernels.cpu.build import library


class CpuBackend:
    """Decodes within the product for a few rows, else just before it, into memory that all layers
    share; computes in float32.

    Raises:
        MissingDependency: there is no C++ compiler.
    """

    def __init__(self, compressed: CompressedTensor) -> None:
        spec, parts = compressed.spec, compressed.parts
        assert isinstance(spec, Leader)
        library()  # its errors come when a layer is made, not when it first runs
        table = parts["table"] if spec.refined else spec.table()
        self._spec, self._shape = spec, compressed.shape
        self._arguments = (
            parts["signs"].cpu().contiguous(), parts["indices"].cpu().contiguous(),
            table.cpu().float().contiguous(), parts["scale"].cpu().float(), spec.d, spec.b, spec.s,
        )  # fmt: skip

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """See `Backend.linear`; sums are in another order than those of `nn.Linear`.

        Raises:
            UsageError: the input is on another device.
        """
        if x.device.type != "cpu":
            raise UsageError(f"--backend cpu computes on the CPU; the input is on {x.device}.")
        rows, columns = self._shape
        inputs = x.reshape(-1, columns).float()
        if self._spec.rotated:
            inputs = rotate(inputs)
        y = torch.ops.einsort.matmul_leader(inputs, *self._arguments)
        if bias is not None:
            y += bias
        return y.view(*x.shape[:-1], rows).to(x.dtype)
