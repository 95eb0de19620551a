"""The `dense` form: bfloat16, kept as it is. Every plan may end there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from einsort_vla.codec.spec import CodecSpec, Shape, StoredPart


@dataclass(frozen=True)
class Dense(CodecSpec):
    """bfloat16, not coded."""

    form: ClassVar[str] = "dense"

    def layout(self, shape: Shape) -> dict[str, StoredPart]:
        return {"dense": StoredPart(torch.bfloat16, shape)}

    def predicted_distortion(self, in_features: int) -> float:
        return 0.0

    def encode(self, weight: Tensor, hessian: Tensor | None = None) -> dict[str, Tensor]:
        return {"dense": weight.to(torch.bfloat16)}

    def decode(self, parts: Mapping[str, Tensor], shape: Shape) -> Tensor:
        return parts["dense"].float()

    @classmethod
    def menu(cls, weight: Tensor | None = None) -> Sequence["Dense"]:
        return [cls()]


FORM = Dense
