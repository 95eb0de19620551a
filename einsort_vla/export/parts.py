"""The pieces a policy is exported in, each a module with named inputs and outputs."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from einsort_vla.checkpoint import TYPE_PREFIX
from einsort_vla.errors import UsageError
from einsort_vla.lerobot import LoadedPolicy

PRECISIONS = ("float16", "bfloat16", "float32")
_PALIGEMMA = ("bfloat16", "float32")  # its activations go beyond float16


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


@dataclass(frozen=True)
class Family:
    """How policies of one type are exported.

    Attributes:
        parts: see `parts_of`.
        set_precision: lets the model compute in a type, in place.
        precisions: what its engines may compute in; the first one if nobody says otherwise.
    """

    parts: Callable[[LoadedPolicy, int], list[Part]]
    set_precision: Callable[[LoadedPolicy, torch.dtype], None]
    precisions: tuple[str, ...]


def family_of(kind: str) -> Family:
    """How policies of a type (`type` of config.json) are exported.

    Raises:
        UsageError: they are not.
    """
    from einsort_vla.export import pi, smolvla

    families = {
        "smolvla": Family(smolvla.smolvla_parts, smolvla.set_precision, PRECISIONS),
        "pi0": Family(pi.pi_parts, pi.set_precision, _PALIGEMMA),
        "pi05": Family(pi.pi_parts, pi.set_precision, _PALIGEMMA),
    }
    own = kind.removeprefix(TYPE_PREFIX)
    if own not in families:
        raise UsageError(
            f"policies of type {own!r} are not exported; those of {', '.join(families)} are."
        )
    return families[own]


def parts_of(policy: LoadedPolicy, batch: int) -> list[Part]:
    """`vision`, `prefix` and `denoise_step` of a flow-matching policy.

    Args:
        policy: with its layers replaced by `replace_linears_`, or dense.
        batch: rows of the example inputs.

    Raises:
        UsageError: the policy's family is not exported.
    """
    return family_of(policy.module.config.type).parts(policy, batch)


def n_flow_steps(config: Any) -> int:
    """Steps from noise to actions, by whatever name a config has for them."""
    return config.num_steps if hasattr(config, "num_steps") else config.num_inference_steps
