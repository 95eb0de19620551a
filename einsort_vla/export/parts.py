"""The pieces a policy is exported in, each a module with named inputs and outputs."""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor, nn

from einsort_vla.errors import UsageError
from einsort_vla.lerobot import LoadedPolicy

VISION, PREFIX, DENOISE_STEP = "vision", "prefix", "denoise_step"


@dataclass(frozen=True)
class Part:
    """One graph.

    Attributes:
        name: of its file.
        module: takes the inputs in their order.
        inputs: example tensors by name, which give shapes and types.
        outputs: names of what the module returns, in order.
        batch_axis: of those inputs and outputs whose batch is not the first axis.
    """

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    batch_axis: dict[str, int] = field(default_factory=dict)


def parts_of(policy: LoadedPolicy, batch: int) -> list[Part]:
    """`vision`, `prefix` and `denoise_step` of a flow-matching policy.

    Args:
        policy: with its layers replaced by `replace_linears_`, or dense.
        batch: rows of the example inputs.

    Raises:
        UsageError: the policy's family is not exported.
    """
    from einsort_vla.export.smolvla import smolvla_parts

    families: dict[str, Callable[[LoadedPolicy, int], list[Part]]] = {"smolvla": smolvla_parts}
    kind = policy.module.config.type.removeprefix("einsort_")
    if kind not in families:
        raise UsageError(
            f"policies of type {kind!r} are not exported yet; those of {', '.join(families)} are."
        )
    return families[kind](policy, batch)
