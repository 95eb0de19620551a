"""The `local` form: MixT's mean of local tensor operators (arXiv:2605.25344), a comparator.

The matrix is padded to d^m x d^n. Operator k of N acts on a window of n - N + 1 input and
m - N + 1 output bonds that begins at bond k, and leaves the other N - 1 bonds as they are:
W = 1/N sum_k I x T_k x I. It is executed as it stands, never rebuilt.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from einsort_vla.codec.hessian import Hessian
from einsort_vla.codec.spec import (
    CodecSpec,
    Extent,
    Shape,
    StoredPart,
    check_padding,
    most_padded,
)
from einsort_vla.errors import CheckpointError, ShapeError, UsageError

SWEEPS, TOLERANCE = 200, 1e-7
MAX_OPERATORS, MAX_D = 32, 2**16
LARGEST = 1e30  # of a weight, so that sums of operators stay finite


@dataclass(frozen=True)
class Local(CodecSpec):
    """The mean of `operators` local operators on bonds of size `d`.

    Raises:
        UsageError: fewer than two operators, bonds of size one, or too many or too large ones.
    """

    operators: int
    d: int = 2
    form: ClassVar[str] = "local"

    def __post_init__(self) -> None:
        if not (2 <= self.operators <= MAX_OPERATORS and 2 <= self.d <= MAX_D):
            raise UsageError(
                f"local takes 2 to {MAX_OPERATORS} operators on bonds of 2 to {MAX_D}; not "
                f"operators={self.operators} d={self.d}."
            )

    def layout(self, shape: Shape) -> dict[str, StoredPart]:
        return {"operators": StoredPart(torch.bfloat16, (self.operators, *self._windows(shape)))}

    def n_core_numbers(self, shape: Shape) -> int:
        out_window, in_window = self._windows(shape)
        return self.operators * out_window * in_window

    def predicted_distortion(self, in_features: int) -> float:
        raise UsageError("the error of local operators depends on the weights; use `choices`.")

    def lack(self, extent: Extent) -> str:
        if extent.largest > LARGEST:
            return f"the weight reaches {extent.largest:.3g}, too large for sums of operators"
        return ""  # its operators are bfloat16, whose range is that of float32

    def encode(self, weight: Tensor, hessian: Hessian | None = None) -> dict[str, Tensor]:
        shape = (weight.shape[0], weight.shape[1])
        operators = self._fit(weight.cpu().double(), shape)
        return {"operators": operators.to(torch.bfloat16)}

    def decode(self, parts: Mapping[str, Tensor], shape: Shape) -> Tensor:
        operators = parts["operators"].cpu().float()
        total = sum(self._embed(t, k) for k, t in enumerate(operators))
        assert isinstance(total, Tensor)
        return total[: shape[0], : shape[1]] / self.operators

    def check(self, parts: Mapping[str, Tensor], shape: Shape) -> None:
        largest = parts["operators"].double().abs().flatten(1).amax(1).sum()
        if largest > torch.finfo(torch.float32).max:
            raise CheckpointError("its operators add up to more than float32 holds.")

    def matmul(self, x: Tensor, parts: Mapping[str, Tensor], shape: Shape) -> Tensor:
        """(..., in_features) to (..., out_features) without the matrix."""
        operators = parts["operators"].to(x)
        _, in_window = self._windows(shape)
        free = self.d ** (self.operators - 1)
        padded = functional.pad(x, (0, free * in_window - shape[1]))
        total = torch.zeros(1, dtype=x.dtype, device=x.device)
        for k, operator in enumerate(operators):
            before = self.d**k
            folded = padded.unflatten(-1, (before, in_window, free // before))
            total = total + torch.einsum("...ajb,ij->...aib", folded, operator).flatten(-3)
        return total[..., : shape[0]] / self.operators

    @classmethod
    def menu(cls, weight: Tensor | None = None, d: int = 2) -> Sequence["Local"]:
        if weight is None:
            return []
        bonds = [_n_bonds(n, d) for n in weight.shape]
        if d ** sum(bonds) > most_padded((weight.shape[0], weight.shape[1])):
            return []
        limit = min(bonds)
        return [cls(n, d) for n in range(min(5, limit), 1, -1)]

    @classmethod
    def choices(
        cls, shape: Shape, weight: Tensor | None = None, **options: Any
    ) -> Sequence[tuple[CodecSpec, float]]:
        """With the measured error of each number of operators."""
        if weight is None:
            return []
        return [(spec, spec.measured_distortion(weight)) for spec in cls.menu(weight, **options)]

    def _windows(self, shape: Shape) -> tuple[int, int]:
        """Rows and columns of one operator."""
        m, n = (_n_bonds(size, self.d) for size in shape)
        if self.operators > min(m, n):
            raise ShapeError(
                f"{self.operators} local operators need {self.operators} bonds of {self.d}; a "
                f"matrix of shape {shape} has {m} and {n}."
            )
        check_padding(shape, self.d ** (m + n), f"{self}")
        return self.d ** (m - self.operators + 1), self.d ** (n - self.operators + 1)

    def _embed(self, operator: Tensor, k: int) -> Tensor:
        """I x T_k x I, the whole padded matrix."""
        before, after = self.d**k, self.d ** (self.operators - 1 - k)
        eyes = (torch.eye(size, dtype=operator.dtype) for size in (before, after))
        return torch.kron(torch.kron(next(eyes), operator.contiguous()), next(eyes))

    def _project(self, matrix: Tensor, k: int, windows: tuple[int, int]) -> Tensor:
        """The operator k nearest to a padded matrix: its mean over the bonds left as they are."""
        before, after = self.d**k, self.d ** (self.operators - 1 - k)
        folded = matrix.view(before, windows[0], after, before, windows[1], after)
        return folded.diagonal(dim1=0, dim2=3).diagonal(dim1=1, dim2=3).mean((-1, -2))

    def _fit(self, weight: Tensor, shape: Shape) -> Tensor:
        """Least squares over all operators, one after the other until nothing moves."""
        windows = self._windows(shape)
        free = self.d ** (self.operators - 1)
        padding = (0, free * windows[1] - shape[1], 0, free * windows[0] - shape[0])
        left = self.operators * functional.pad(weight, padding)
        operators = torch.zeros(self.operators, *windows, dtype=torch.float64)
        scale = float(left.abs().max()) or 1.0
        for _ in range(SWEEPS):
            moved = 0.0
            for k in range(self.operators):
                step = self._project(left, k, windows)
                operators[k] += step
                left -= self._embed(step, k)
                moved = max(moved, float(step.abs().max()))
            if moved < TOLERANCE * scale:
                break
        return operators


FORM = Local


def _n_bonds(size: int, d: int) -> int:
    bonds = 1
    while d**bonds < size:
        bonds += 1
    return bonds
