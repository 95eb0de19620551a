"""What both backends for GPUs need of the GPUs and of an input."""

import torch
from torch import Tensor

from einsort_vla.errors import UsageError

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
        "CUDA_VISIBLE_DEVICES, or use --backend dense"
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


def _text(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))
