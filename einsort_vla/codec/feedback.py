"""Error feedback over input columns: what one column's code gets wrong, later columns make good.

LDLQ (Chee et al. 2023, arXiv:2307.13304), which is GPTQ (Frantar et al. 2022, arXiv:2210.17323)
without an inverse: with H = X^T X of the layer's inputs and H = U D U^T, U unit upper triangular,
column k is coded after the errors of all columns j before it, times U[j, k], are added to it.
"""

from typing import Protocol

import torch
from torch import Tensor

from einsort_vla.errors import NumericsError, ShapeError

# Of the mean diagonal. GPTQ takes 0.01; with 0.03 the output error on inputs not calibrated on is
# 0.15 dB lower, and the weights' error 0.5 dB (MiniLM at 2 bits, benchmarks/feedback.py).
DAMPING = 0.03
BLOCK = 128  # columns coded at once, or for which the errors before them are added at once


class ColumnCoder(Protocol):
    """Codes a matrix some columns at a time, from left to right.

    Columns come as the rows of a tensor, (k, out_features): each lies in one piece.
    """

    group: int
    """Columns that share parameters."""

    def prepare(self, columns: Tensor) -> None:
        """Choose the parameters of the group that begins with these (k, out_features) columns."""
        ...

    def code(self, columns: Tensor) -> Tensor:
        """Code the next columns, (k, out_features), and return what will be decoded of them."""
        ...


def code_columns(columns: Tensor, coder: ColumnCoder, hessian: Tensor | None) -> Tensor:
    """Each column for itself, or with a Hessian `code_with_feedback`; what will be decoded."""
    if hessian is not None:
        return code_with_feedback(columns, hessian, coder)
    decoded, start = torch.empty_like(columns), 0
    for group in columns.split(coder.group):
        coder.prepare(group)
        for block in group.split(BLOCK):
            decoded[start : start + len(block)] = coder.code(block)
            start += len(block)
    return decoded


def code_with_feedback(columns: Tensor, hessian: Tensor, coder: ColumnCoder) -> Tensor:
    """Column after column, errors fed forward; what will be decoded, (in_features, out_features).

    Args:
        columns: (in_features, out_features), the weight transposed.
        hessian: (in_features, in_features), X^T X of the inputs, any positive factor.
        coder: told each column once, as it is after correction.

    Raises:
        ShapeError: the Hessian does not fit the weight.
        NumericsError: it is not finite, or not positive definite after damping.
    """
    shares = _error_shares(hessian, len(columns)).to(columns)
    errors = torch.empty_like(columns)
    block = coder.group if coder.group < len(columns) else BLOCK
    for start in range(0, len(columns), block):
        within = shares[start : start + block, start : start + block]
        added = shares[start : start + block, :start] @ errors[:start]
        if start % coder.group == 0:
            group = columns[start : start + coder.group]
            # As they will be if each of them is met without error, the added parts included.
            coder.prepare(group + _solve(within, added) if start else group)
        for k in range(len(added)):
            i = start + k
            added[k].addmv_(errors[start:i].t(), within[k, :k]).add_(columns[i])
            errors[i] = columns[i] - coder.code(added[k : k + 1])[0]
    return torch.sub(columns, errors, out=errors)


def least_squares(
    columns: Tensor, decoded: Tensor, hessian: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Two of (out_features,), whose ratio is the factor of a row of least squared (output) error.

    Args:
        columns: (in_features, out_features), the weight transposed.
        decoded: what is decoded of it, alike, but for the factors.
        hessian: (in_features, in_features), X^T X of the inputs.

    Returns:
        Products of what is wanted and what is decoded, and energies of that, never 0.
    """
    energy = product = decoded.new_zeros(decoded.shape[1])
    for own, first in zip(decoded.split(BLOCK), range(0, len(decoded), BLOCK), strict=True):
        rows = slice(first, first + len(own))
        weighted = own if hessian is None else hessian[rows].to(decoded) @ decoded
        energy = energy + (own * weighted).sum(0)
        product = product + (columns[rows] * weighted).sum(0)
    return product, energy.clamp_(min=torch.finfo(torch.float32).tiny)


def _solve(within: Tensor, added: Tensor) -> Tensor:
    return torch.linalg.solve_triangular(within, added, upper=False, unitriangular=True)


def _error_shares(hessian: Tensor, in_features: int) -> Tensor:
    """U^T of H = U D U^T, float64: row k says how much of each error before it column k takes on.

    The Cholesky factor of the flipped matrix, flipped back, is U D^(1/2).
    """
    factor = damped_factor(hessian.flip(0, 1), in_features).flip(0, 1).t()
    return factor / factor.diagonal()[:, None]


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
    if not torch.isfinite(hessian).all():
        raise NumericsError("the Hessian holds NaN or infinite values; calibrate again.")
    matrix = hessian.double()
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
