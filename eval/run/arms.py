"""The arms of a run: a dense model and compressed copies of it, for robots and for texts alike."""

from dataclasses import dataclass
from pathlib import Path

DENSE = "dense"


@dataclass(frozen=True)
class Variant:
    """One model on disk, and what runs it."""

    path: str
    backend: str = "decoded"
    bundle: Path | None = None  # its export, which ONNX Runtime then runs
    device: str = "cpu"


@dataclass(frozen=True)
class Arm:
    """One model at one delay, under the name it has in all results."""

    name: str
    variant: Variant
    delay_ms: float = 0.0
    reference: str | None = None  # the dense arm it is compared with
    is_exact: bool = False  # its weights are the reference's bit for bit: so is what it does

    @property
    def folder(self) -> Path:
        """Of its model."""
        return Path(self.variant.path)


def arm_name(model: str, delay_ms: float) -> str:
    """`curve 0.5`, or `curve 0.5 +100 ms`."""
    return f"{model} +{delay_ms:g} ms" if delay_ms else model
