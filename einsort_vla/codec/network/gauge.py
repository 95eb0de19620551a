"""Gauge fixing: on a bond of rank r, r x r numbers of one core are an identity (paper, G)."""

import torch
from torch import Tensor


def fix(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Split A = A' G, where r rows of A' are the identity, found by LU with row pivoting.

    Args:
        matrix: A, (m, r) with m >= r and full column rank.

    Returns:
        Which rows are the identity's, (m,) bool; the other rows of A', (m - r, r); G, (r, r).
    """
    m, r = matrix.shape
    permutation, lower, _ = torch.linalg.lu(matrix)
    source = permutation.argmax(dim=0)  # row of the matrix that each row of `lower` came from
    chosen = torch.zeros(m, dtype=torch.bool)
    chosen[source[:r]] = True
    push = matrix[chosen]  # rows in their original order need no further permutation
    top = lower[:r]
    # In the pivots' order A' = [I; L_rest L_top^-1]; then its columns follow the rows' order.
    rest_by_pivot = torch.linalg.solve_triangular(top, lower[r:], upper=False, left=False,
                                                  unitriangular=True)  # fmt: skip
    by_row = source[:r].argsort()
    rest = rest_by_pivot[source[r:].argsort()][:, by_row]
    return chosen, rest, push


def join(chosen: Tensor, rest: Tensor) -> Tensor:
    """(m, r): the matrix A' again."""
    matrix = torch.zeros(len(chosen), rest.shape[1], dtype=rest.dtype)
    matrix[chosen] = torch.eye(rest.shape[1], dtype=rest.dtype)
    matrix[~chosen] = rest
    return matrix
