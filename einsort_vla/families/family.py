"""All that is known of one kind of policy, as one value."""

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

TYPE_PREFIX = "einsort_"  # of the policy type: a loader that knows the dense type alone must refuse
BACKBONE_FOLDER = "vlm"  # a backbone's configuration and tokenizer that travel with the weights

PRECISIONS = ("float16", "bfloat16", "float32")  # that engines compute in

# Reasons that several families give.
LOOKUP = "a look-up table, not a linear layer"
UNUSED = "never used in inference"
EMBODIMENT = "one matrix for each embodiment, chosen at run time"
NOT_LINEAR = "not a matrix of a linear layer"
RAW = "nn.MultiheadAttention reads the raw weight"
TABLES: Mapping[str, str] = {"*embed_tokens*": LOOKUP, "*position_embedding*": LOOKUP}


@dataclass(frozen=True)
class Prefix:
    """Where a flow-matching policy reads its prefix, pictures and words.

    Attributes:
        reader: name in `policy.model` of the module that reads it.
        copier: the module of LeRobot that copies the cache in every denoising step, if one does.
    """

    reader: str
    copier: str | None = None


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


@dataclass(frozen=True)
class Family:
    """What is known of the policies of one LeRobot type.

    Weights are given by patterns of their stored names, each with the reason.

    Attributes:
        name: LeRobot's `type`.
        dense: kept as they are.
        dropped: what inference never uses; not stored.
        tied: pattern of `dropped` to the name that must be stored beside it; without that name the
            head is the look-up table itself and stays.
        rename: stored names to the policy's, where another tool wrote the file.
        backbone: field of the config that names the backbone on the hub; `BACKBONE_FOLDER` of the
            checkpoint takes its place.
        settings: config fields of a policy whose weights come from its checkpoint.
        settings_coded: further ones of a compressed policy, which lacks what is `dropped`.
        offline: held open while a policy is built, so that no weights are fetched.
        prefix: None if no prefix is kept.
        export: None if the policies are not exported.
    """

    name: str
    dense: Mapping[str, str] = field(default_factory=dict)
    dropped: Mapping[str, str] = field(default_factory=dict)
    tied: Mapping[str, str] = field(default_factory=dict)
    rename: Callable[[dict[str, Any]], dict[str, Any]] = dict
    backbone: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    settings_coded: Mapping[str, Any] = field(default_factory=dict)
    offline: Callable[[], AbstractContextManager[Any]] = nullcontext
    prefix: Prefix | None = None
    export: Export | None = None

    def dense_reason(self, name: str, shape: tuple[int, ...]) -> str | None:
        """Why a tensor is not compressible; None if it is."""
        if name.endswith("in_proj_weight"):
            return RAW
        if len(shape) == 3 and name.endswith(".W"):
            return EMBODIMENT
        if len(shape) != 2 or not name.endswith(".weight"):
            return NOT_LINEAR
        return _match(name, {**self.dense, **self.dropped})

    def dropped_reasons(self, names: Collection[str]) -> dict[str, str]:
        """The tensors of a checkpoint that need not be stored, with the reason."""
        patterns = {
            pattern: reason
            for pattern, reason in self.dropped.items()
            if pattern not in self.tied or any(fnmatchcase(n, self.tied[pattern]) for n in names)
        }
        found = {name: _match(name, patterns) for name in sorted(names)}
        return {name: reason for name, reason in found.items() if reason}

    def in_policy[T](self, policy: Any, stored: Mapping[str, T]) -> dict[str, T]:
        """What a file holds, by the names that LeRobot's policy has for it.

        openpi's files (pi0) lack the prefix `model.`.

        Args:
            policy: a LeRobot policy.
            stored: by stored name: tensors, or anything else.
        """
        found = dict(stored)
        if hasattr(policy, "model") and not any(name.startswith("model.") for name in found):
            found = {f"model.{name}": value for name, value in found.items()}
        return self.rename(found)

    def settings_in(self, folder: Path) -> dict[str, Any]:
        """Config fields of a policy that is built for the weights in a checkpoint folder."""
        found = dict(self.settings)
        if self.backbone and (folder / BACKBONE_FOLDER).is_dir():
            found[self.backbone] = str(folder / BACKBONE_FOLDER)
        return found


def _match(name: str, patterns: Mapping[str, str]) -> str | None:
    return next(
        (reason for pattern, reason in patterns.items() if fnmatchcase(name, pattern)), None
    )
