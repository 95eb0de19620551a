"""What an error of one weight matrix costs: a quadratic form with Kronecker factors.

To second order an error E of a weight, (out_features, in_features), costs tr(E A E^T B): A are the
second moments of the layer's inputs, B those of the loss's gradients by its outputs (K-FAC: Martens
and Grosse 2015, arXiv:1503.05671). B alone missing, all outputs count alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from einsort_vla.errors import NumericsError, ShapeError

# Of the mean diagonal. GPTQ takes 0.01; with 0.03 the output error on inputs not calibrated on is
# 0.15 dB lower, and the weights' error 0.5 dB (MiniLM at 2 bits, benchmarks/feedback.py).
DAMPING = 0.03
# There are fewer gradients than inputs, and they are noisier.
OUTPUT_DAMPING = 0.1


@dataclass(frozen=True)
class Hessian:
    """Both factors, each up to any positive number.

    Attributes:
        inputs: (in_features, in_features), the mean of x x^T; rows of x may be weighted.
        outputs: (out_features, out_features), the mean of g g^T; None for the identity.
    """

    inputs: Tensor
    outputs: Tensor | None = None


def input_shares(hessian: Hessian, in_features: int) -> Tensor:
    """(in_features, in_features) float64; row k says how much of each error before it column k
    takes on: U^T of H = U D U^T.

    Raises:
        ShapeError: the Hessian does not fit a weight with that many inputs.
        NumericsError: it is not finite, or not positive definite after damping.
    """
    factor = _backward_factor(damped(hessian.inputs, in_features, "inputs", DAMPING))
    shares = factor.flip(0, 1).t()
    return shares / shares.diagonal()[:, None]


def output_shares(hessian: Hessian, out_features: int, blocks: Sequence[slice]) -> list[Tensor]:
    """For each block of rows, (n, rows before it) float32: what it takes on of the errors there.

    Raises:
        ShapeError: the Hessian does not fit a weight with that many outputs.
        NumericsError: it is not finite, or not positive definite after damping.
    """
    assert hessian.outputs is not None
    # These moments may be larger than the weight itself, hence float32 and no flipped copy.
    share, n = OUTPUT_DAMPING, out_features
    factor = _backward_factor(damped(hessian.outputs, n, "outputs", share, torch.float32))

    def rows(own: slice, before: slice) -> Tensor:
        flipped = factor[n - before.stop : n - before.start, n - own.stop : n - own.start]
        return flipped.flip(0, 1).t()

    found = []
    for own in blocks:
        within, added = rows(own, own), rows(own, slice(0, own.start))
        diagonal = within.diagonal()[:, None]
        found.append(in_block(within / diagonal, added / diagonal))
    return found


def _backward_factor(matrix: Tensor) -> Tensor:
    """The Cholesky factor of a matrix in reverse order, which flipped back is U D^(1/2)."""
    reverse = matrix.flip(0, 1)
    del matrix
    return cholesky(reverse)


def in_block(within: Tensor, added: Tensor) -> Tensor:
    """What a block takes on if each of its members is met without error, from (n, m) shares."""
    return torch.linalg.solve_triangular(within, added, upper=False, unitriangular=True)


def damped(
    moments: Tensor, n: int, what: str, share: float, dtype: torch.dtype = torch.float64
) -> Tensor:
    """(n, n), with `share` of the mean diagonal added; what never varies stands alone.

    Raises:
        ShapeError: the moments do not fit.
        NumericsError: they are not finite, or all zero.
    """
    if tuple(moments.shape) != (n, n):
        raise ShapeError(
            f"the Hessian has shape {tuple(moments.shape)}; a weight with {n} {what} needs "
            f"({n}, {n})."
        )
    if not torch.isfinite(moments).all():
        raise NumericsError("the Hessian holds NaN or infinite values; calibrate again.")
    matrix = moments.to(dtype, copy=True)
    diagonal = matrix.diagonal()
    mean = diagonal.mean()
    if not mean > 0:
        raise NumericsError(f"the Hessian's diagonal is not positive: no {what} were seen.")
    diagonal += torch.where(diagonal == 0, mean, share * mean)
    return matrix


def cholesky(matrix: Tensor) -> Tensor:
    """Lower triangular L with H = L L^T.

    Raises:
        NumericsError: it is not positive definite.
    """
    lower, failed = torch.linalg.cholesky_ex(matrix)
    if failed:
        raise NumericsError(
            "the Hessian is not positive definite, although damped. It must be X^T X of real "
            "inputs; calibrate again."
        )
    return lower
