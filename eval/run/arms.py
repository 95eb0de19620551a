"""What is compared: policies, dense and compressed, each with the delays it is tried at."""

from dataclasses import dataclass
from pathlib import Path

from policies.lerobot_adapter import LeRobotPolicy, load
from policies.onnx_adapter import load_onnx

DENSE = "dense"


@dataclass(frozen=True)
class Variant:
    """One policy on disk, and what runs it."""

    path: str
    backend: str = "decoded"
    bundle: Path | None = None  # its export, which ONNX Runtime then runs
    device: str = "cpu"

    def load(self) -> LeRobotPolicy:
        if self.bundle is not None:
            return load_onnx(self.path, self.bundle)
        return load(self.path, self.device, self.backend)


@dataclass(frozen=True)
class Arm:
    """One policy at one delay, under the name it has in all results."""

    name: str
    variant: Variant
    delay_ms: float = 0.0
    reference: str | None = None  # the dense arm it is compared with
    is_exact: bool = False  # its weights are the reference's bit for bit: so are its episodes


def arm_name(policy: str, delay_ms: float) -> str:
    """`leader 0.5`, or `leader 0.5 +100 ms`."""
    return f"{policy} +{delay_ms:g} ms" if delay_ms else policy
