"""The pieces a policy is exported in, each a module with named inputs and outputs."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

PRECISIONS = ("float16", "bfloat16", "float32")


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
class Export:
    """How policies of one family are exported.

    Attributes:
        parts: LeRobot's policy and the rows of the example inputs to `vision`, `prefix` and
            `denoise_step`. Coded layers of the policy have been replaced by what is exported.
        set_precision: lets LeRobot's policy compute in a type, in place.
        precisions: what its engines may compute in; the first one if nobody says otherwise.
        steps_field: of its config: the number of steps from noise to actions.
    """

    parts: Callable[[Any, int], list[Part]]
    set_precision: Callable[[Any, torch.dtype], None]
    precisions: tuple[str, ...]
    steps_field: str

    def n_steps(self, config: Any) -> int:
        """Steps from noise to actions."""
        return getattr(config, self.steps_field)
