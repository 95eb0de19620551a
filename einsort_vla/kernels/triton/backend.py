"""Multiplication from the coded streams on a GPU, by Triton."""

import functools

import torch
from torch import Tensor

from einsort_vla.codec import CompressedTensor
from einsort_vla.kernels.gpu import GpuBackend, why_unsuitable
from einsort_vla.kernels.triton import ops  # noqa: F401  registers the op


@functools.cache
def why_unavailable() -> str | None:
    """What stands against this backend on this machine, with the fix; None if nothing does."""
    try:
        interpreted = _interpreted()
    except ImportError as error:
        return f"Triton 3.4 or newer is needed ({error}): pip install 'triton>=3.4'"
    return None if interpreted else why_unsuitable()


class TritonBackend(GpuBackend):
    """See `GpuBackend`; it needs Triton."""

    name = "triton"

    def __init__(self, compressed: CompressedTensor) -> None:
        super().__init__(compressed)
        self.kind = "cpu" if _interpreted() else "cuda"

    def multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        return torch.ops.einsort.matmul_leader_triton(x, *self.matrix, bias, *self._spec.window)


def _interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, on the CPU, for tests."""
    from triton import knobs

    return knobs.runtime.interpret
