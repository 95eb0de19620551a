"""What both backends for GPUs share: which GPUs and inputs will do, and the matrix on the GPU."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from einsort_vla.codec import CompressedTensor, Leader
from einsort_vla.codec.leader import table_on
from einsort_vla.errors import UsageError
from einsort_vla.kernels import hadamard  # noqa: F401  registers the op
from einsort_vla.kernels.words import to_words

LEAST_CAPABILITY = (8, 0)
TYPES = (torch.float32, torch.float16, torch.bfloat16)  # of activations


def capabilities() -> list[tuple[int, int]]:
    """Of every GPU that torch sees."""
    return [torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())]


def why_unsuitable() -> str | None:
    """What stands against the GPUs of this machine, with the fix; None if all will do."""
    if not torch.cuda.is_available():
        return "there is no CUDA device: torch sees none; use --backend cpu"
    found = capabilities()
    least = min(found)
    if least >= LEAST_CAPABILITY:
        return None
    i = found.index(least)
    return (
        f"compute capability {_text(LEAST_CAPABILITY)} is needed, and "
        f"{torch.cuda.get_device_name(i)} (cuda:{i}) has {_text(least)}; hide it by "
        "CUDA_VISIBLE_DEVICES, or use --backend decoded"
    )


def check_input(x: Tensor, backend: str, kind: str = "cuda") -> None:
    """Refuse an input that the kernels do not take.

    Raises:
        UsageError: it is not on a device of that kind, or of another type than `TYPES`.
    """
    if x.device.type != kind or x.dtype not in TYPES:
        raise UsageError(
            f"--backend {backend} computes in float32, float16 or bfloat16 on a GPU; the input is "
            f"{x.dtype} on {x.device}."
        )


class GpuBackend(ABC):
    """Decodes within the product, or for many rows before it; only the coded matrix is kept."""

    name: ClassVar[str]
    kind = "cuda"
    """Of the devices whose inputs it takes."""

    def __init__(self, compressed: CompressedTensor) -> None:
        assert isinstance(compressed.spec, Leader)
        self._compressed, self._spec = compressed, compressed.spec
        self._device: torch.device | None = None
        if compressed.parts["signs"].is_cuda:
            self._prepare(compressed.parts["signs"].device)

    @abstractmethod
    def multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """(m, in_features), rotated if the code is, to (m, out_features)."""

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """See `Backend.linear`; sums are in another order than those of `nn.Linear`.

        Raises:
            UsageError: the input is not on a GPU, or of another type.
        """
        check_input(x, self.name, self.kind)
        if x.device != self._device:
            self._prepare(x.device)
        rows, columns = self._compressed.shape
        inputs = x if x.dim() == 2 else x.reshape(math.prod(x.shape[:-1]), columns)
        if self._spec.rotated:
            inputs = torch.ops.einsort.hadamard(inputs)
        y = self.multiply(inputs, bias)
        return y if x.dim() == 2 else y.view(*x.shape[:-1], rows)

    def _prepare(self, device: torch.device) -> None:
        """Bring the matrix to a device: words of signs and indices, table, scales."""
        parts = {name: part.to(device) for name, part in self._compressed.parts.items()}
        table = parts["table"].float() if self._spec.refined else table_on(self._spec, device)
        streams = to_words(parts["signs"]), to_words(parts["indices"])
        self.matrix = (*streams, table.contiguous(), parts["scale"].contiguous())
        self._device = device


def _text(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))
