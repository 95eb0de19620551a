"""Error feedback over input columns: what one column's code gets wrong, later columns make good.

GPTQ (Frantar et al. 2022, arXiv:2210.17323) in the form that is LDLQ (Chee et al. 2023,
arXiv:2307.13304): with H = X^T X of the layer's inputs and H^-1 = U^T U, the error of column i,
divided by U[i, i], is taken from each later column j times U[i, j].
"""

from typing import Protocol

import torch
from torch import Tensor

from einsort_vla.errors import NumericsError, ShapeError

# Of the mean diagonal. GPTQ takes 0.01; with 0.03 the output error on inputs not calibrated on is
# 0.15 dB lower, and the weights' error 0.5 dB (MiniLM at 2 bits, benchmarks/feedback.py).
DAMPING = 0.03
BLOCK = 128  # columns coded, or whose corrections are gathered, before one large step


class ColumnCoder(Protocol):
    """Codes a matrix some columns at a time, from left to right."""

    group: int
    """Columns that share parameters."""

    def prepare(self, columns: Tensor) -> None:
        """Choose the parameters of the group that begins with these (out_features, k) columns."""
        ...

    def code(self, columns: Tensor) -> Tensor:
        """Code the next columns, (out_features, k), and return what will be decoded of them."""
        ...


def code_plainly(weight: Tensor, coder: ColumnCoder) -> Tensor:
    """Each column for itself; what will be decoded, (out_features, in_features)."""
    decoded, start = torch.empty_like(weight), 0
    for group in weight.split(coder.group, dim=1):
        coder.prepare(group)
        for columns in group.split(BLOCK, dim=1):
            decoded[:, start : start + columns.shape[1]] = coder.code(columns)
            start += columns.shape[1]
    return decoded


def code_with_feedback(weight: Tensor, hessian: Tensor, coder: ColumnCoder) -> Tensor:
    """Column after column, errors fed forward; what will be decoded, (out_features, in_features).

    Args:
        weight: (out_features, in_features) float32.
        hessian: (in_features, in_features), X^T X of the inputs, any positive factor.
        coder: told each column once, as it is after correction.

    Raises:
        ShapeError: the Hessian does not fit the weight.
        NumericsError: it is not finite, or not positive definite after damping.
    """
    upper = _inverse_factor(hessian, weight.shape[1]).to(weight)
    left, decoded = weight.clone(), torch.empty_like(weight)
    columns = weight.shape[1]
    # Blocks end where groups end: a group is prepared with all corrections before it in place.
    block = BLOCK if coder.group >= columns else coder.group * max(1, BLOCK // coder.group)
    for start in range(0, columns, block):
        stop = min(start + block, columns)
        errors = torch.empty_like(weight[:, start:stop])
        for i in range(start, stop):
            if i % coder.group == 0:
                coder.prepare(left[:, i : i + coder.group])
            decoded[:, i : i + 1] = coder.code(left[:, i : i + 1])
            error = (left[:, i] - decoded[:, i]) / upper[i, i]
            errors[:, i - start] = error
            left[:, i + 1 : stop].addr_(error, upper[i, i + 1 : stop], alpha=-1)
        left[:, stop:].addmm_(errors, upper[start:stop, stop:], alpha=-1)
    return decoded


def _inverse_factor(hessian: Tensor, in_features: int) -> Tensor:
    """Upper triangular U with H^-1 = U^T U, float64."""
    inverse = torch.cholesky_inverse(damped_factor(hessian, in_features))
    return torch.linalg.cholesky(inverse, upper=True)


def damped_factor(hessian: Tensor, in_features: int) -> Tensor:
    """Lower triangular L with H = L L^T after damping, float64; inputs that never vary stand alone.

    Raises:
        ShapeError: the Hessian does not fit a weight with that many inputs.
        NumericsError: it is not finite, or not positive definite after damping.
    """
    if tuple(hessian.shape) != (in_features, in_features):
        raise ShapeError(
            f"the Hessian has shape {tuple(hessian.shape)}; a weight with {in_features} inputs "
            f"needs ({in_features}, {in_features})."
        )
    matrix = hessian.double()
    if not torch.isfinite(matrix).all():
        raise NumericsError("the Hessian holds NaN or infinite values; calibrate again.")
    diagonal = matrix.diagonal()
    mean = diagonal.mean()
    if not mean > 0:
        raise NumericsError("the Hessian's diagonal is not positive: no inputs were seen.")
    damped = matrix + torch.diag_embed(torch.where(diagonal == 0, mean, DAMPING * mean))
    lower, failed = torch.linalg.cholesky_ex(damped)
    if failed:
        raise NumericsError(
            f"the Hessian is not positive definite, damped by {DAMPING} of its mean diagonal. "
            "It must be X^T X of real inputs; calibrate again."
        )
    return lower
