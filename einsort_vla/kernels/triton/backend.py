"""Multiplication from the coded streams on a GPU, by Triton."""

import functools

import torch
from torch import Tensor

from einsort_vla.codec import CompressedTensor, Leader
from einsort_vla.errors import MissingDependency
from einsort_vla.kernels import hadamard  # noqa: F401  registers the op
from einsort_vla.kernels.gpu import check_input, why_unsuitable
from einsort_vla.kernels.triton import ops  # noqa: F401  registers the op
from einsort_vla.kernels.words import to_words


@functools.cache
def why_unavailable() -> str | None:
    """What stands against this backend on this machine, with the fix; None if nothing does."""
    try:
        interpreted = _interpreted()
    except ImportError as error:
        return f"Triton 3.4 or newer is needed ({error}): pip install 'triton>=3.4'"
    return None if interpreted else why_unsuitable()


class TritonBackend:
    """Decodes within the product, or for many rows before it; only the coded matrix is kept.

    Raises:
        MissingDependency: there is no Triton, or no GPU that will do.
    """

    name = "triton"

    def __init__(self, compressed: CompressedTensor) -> None:
        if reason := why_unavailable():
            raise MissingDependency(f"--backend triton: {reason}.")
        assert isinstance(compressed.spec, Leader)
        self._compressed, self._spec = compressed, compressed.spec
        self._kind = "cpu" if _interpreted() else "cuda"
        self._device: torch.device | None = None
        if compressed.parts["signs"].is_cuda:
            self._prepare(compressed.parts["signs"].device)

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """See `Backend.linear`; sums are in another order than those of `nn.Linear`.

        Raises:
            UsageError: the input is not on a GPU, or of another type.
        """
        check_input(x, self.name, self._kind)
        if x.device != self._device:
            self._prepare(x.device)
        rows, columns = self._compressed.shape
        inputs = x.reshape(-1, columns)
        if self._spec.rotated:
            inputs = torch.ops.einsort.hadamard(inputs)
        y = torch.ops.einsort.matmul_leader_triton(inputs, *self._streams, bias, *self._spec.window)
        return y.view(*x.shape[:-1], rows)

    def _prepare(self, device: torch.device) -> None:
        parts = {name: part.to(device) for name, part in self._compressed.parts.items()}
        table = parts["table"] if self._spec.refined else _table(self._spec, device)
        self._streams = (
            to_words(parts["signs"]), to_words(parts["indices"]),
            table.float().contiguous(), parts["scale"],
        )  # fmt: skip
        self._device = device


@functools.cache  # one table for all layers
def _table(spec: Leader, device: torch.device) -> Tensor:
    return spec.table().to(device)


def _interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, on the CPU, for tests."""
    from triton import knobs

    return knobs.runtime.interpret
