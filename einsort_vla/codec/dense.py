"""The `dense` form: the matrix as it is. Every plan may end there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from einsort_vla.codec.hessian import Hessian
from einsort_vla.codec.spec import CodecSpec, Extent, Shape, StoredPart
from einsort_vla.errors import NumericsError, unknown_name

Type = Literal["bfloat16", "float16", "float32"]  # from the first to be tried to the last


@dataclass(frozen=True)
class Dense(CodecSpec):
    """Not coded: bfloat16, or another type where that would change a number.

    Raises:
        UsageError: it is of no such type.
    """

    dtype: Type = "bfloat16"
    form: ClassVar[str] = "dense"

    def __post_init__(self) -> None:
        if self.dtype not in get_args(Type):
            raise unknown_name("type of a dense matrix", self.dtype, get_args(Type))

    @classmethod
    def of(cls, weight: Tensor) -> "Dense":
        """In the narrowest type that holds every number of a float32 or narrower matrix."""
        matrix = weight.detach().float()
        exact = (name for name in get_args(Type) if torch.equal(_as(matrix, name).float(), matrix))
        return cls(next(exact, "float32"))

    def layout(self, shape: Shape) -> dict[str, StoredPart]:
        return {"dense": StoredPart(getattr(torch, self.dtype), shape)}

    def predicted_distortion(self, in_features: int) -> float:
        return 0.0

    def lack(self, extent: Extent) -> str:
        return ""

    def encode(self, weight: Tensor, hessian: Hessian | None = None) -> dict[str, Tensor]:
        found = _as(weight, self.dtype)
        if not torch.equal(found.float(), weight):
            raise NumericsError(
                f"it holds values that {self.dtype} cannot, so that it cannot be kept as it is in "
                "that type. Plan it as {form: dense, dtype: float32}."
            )
        return {"dense": found}

    def decode(self, parts: Mapping[str, Tensor], shape: Shape) -> Tensor:
        return parts["dense"].float()

    @classmethod
    def menu(cls, weight: Tensor | None = None) -> Sequence["Dense"]:
        return [cls() if weight is None else cls.of(weight)]


FORM = Dense


def _as(weight: Tensor, dtype: Type) -> Tensor:
    return weight.to(getattr(torch, dtype))
