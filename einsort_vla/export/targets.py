"""What can be exported for: the processor, the GPU's architecture, and how graphs are traced."""

from dataclasses import dataclass
from typing import Literal

from einsort_vla.errors import unknown_name

Machine = Literal["x86_64", "aarch64"]


@dataclass(frozen=True)
class GraphOptions:
    """How the graphs of a policy are traced.

    Attributes:
        batch: observations at once; the most, if `dynamic_batch`.
        dynamic_batch: take any batch up to it.
        precision: what engines compute in; None is the family's own.
    """

    batch: int = 1
    dynamic_batch: bool = False
    precision: str | None = None


@dataclass(frozen=True)
class Target:
    """A kind of device.

    Attributes:
        name: of the option.
        what: for people.
        machine: `platform.machine()` there; None runs on any, by ONNX Runtime.
        capability: the GPU's compute capability, times ten.
    """

    name: str
    what: str
    machine: Machine | None = None
    capability: int | None = None


TARGETS = {
    target.name: target
    for target in (
        Target("cpu", "any CPU, by ONNX Runtime"),
        Target("rtx30", "GeForce RTX 30 and RTX A (Ampere)", "x86_64", 86),
        Target("rtx40", "GeForce RTX 40 and RTX Ada", "x86_64", 89),
        Target("rtx50", "GeForce RTX 50 and RTX PRO (Blackwell)", "x86_64", 120),
        Target("orin", "Jetson Orin, JetPack 6 and 7.2", "aarch64", 87),
        Target("thor", "Jetson Thor, JetPack 7", "aarch64", 110),
    )
}


def find_target(name: str) -> Target:
    """The target of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in TARGETS:
        raise unknown_name("target", name, TARGETS)
    return TARGETS[name]
