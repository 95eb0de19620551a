"""Error feedback: what the code of one column or row gets wrong, later ones make good.

LDLQ (Chee et al. 2023, arXiv:2307.13304), which is GPTQ (Frantar et al. 2022, arXiv:2210.17323)
without an inverse: with H = X^T X of the layer's inputs and H = U D U^T, U unit upper triangular,
column k is coded after the errors of all columns j before it, times U[j, k], are added to it. Where
it is known how much each output matters, blocks of rows take on errors of those before in the same
way (YAQA: Tseng et al. 2025, arXiv:2505.22988).
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from einsort_vla.codec.hessian import Hessian, in_block, input_shares, output_shares

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


class PieceCoder(Protocol):
    """Codes pieces of columns, in any order."""

    def code_pieces(self, pieces: Tensor, columns: Sequence[int], rows: Sequence[slice]) -> Tensor:
        """Code (k, n) pieces, each some rows of a column, and return what will be decoded."""
        ...


def code_columns(columns: Tensor, coder: ColumnCoder, hessian: Hessian | None) -> Tensor:
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


def code_with_feedback(columns: Tensor, hessian: Hessian, coder: ColumnCoder) -> Tensor:
    """Column after column, errors fed forward; what will be decoded, (in_features, out_features).

    Args:
        columns: (in_features, out_features), the weight transposed.
        hessian: of which the inputs' part is used.
        coder: told each column once, as it is after correction.

    Raises:
        ShapeError: the Hessian does not fit the weight.
        NumericsError: it is not finite, or not positive definite after damping.
    """
    shares = input_shares(hessian, len(columns)).to(columns)
    errors = torch.empty_like(columns)
    block = coder.group if coder.group < len(columns) else BLOCK
    for start in range(0, len(columns), block):
        within = shares[start : start + block, start : start + block]
        added = shares[start : start + block, :start] @ errors[:start]
        if start % coder.group == 0:
            group = columns[start : start + coder.group]
            # As they will be if each of them is met without error, the added parts included.
            coder.prepare(group + in_block(within, added) if start else group)
        for k in range(len(added)):
            i = start + k
            added[k].addmv_(errors[start:i].t(), within[k, :k]).add_(columns[i])
            errors[i] = columns[i] - coder.code(added[k : k + 1])[0]
    return torch.sub(columns, errors, out=errors)


def code_in_blocks(
    columns: Tensor, hessian: Hessian, coder: PieceCoder, blocks: Sequence[slice]
) -> tuple[Tensor, Tensor]:
    """With feedback between columns, and between blocks of rows.

    A block of rows is as many columns behind the one before it as are coded at once, so that
    several blocks are met side by side.

    Args:
        columns: (in_features, out_features), the weight transposed.
        hessian: both of its parts are used.
        coder: told each piece once, as it is after correction.
        blocks: of the rows.

    Returns:
        What each block was to be once the errors of those before it were known, and what will be
        decoded; both are as `columns`.

    Raises:
        ShapeError: the Hessian does not fit the weight.
        NumericsError: it is not finite, or not positive definite after damping.
    """
    shares = input_shares(hessian, len(columns)).to(columns)
    taken_on = [own.to(columns) for own in output_shares(hessian, columns.shape[1], blocks)]
    wanted, decoded = columns.clone(), torch.empty_like(columns)
    starts = range(0, len(columns), BLOCK)
    for step in range(len(starts) + len(blocks) - 1):
        alike = defaultdict(list)
        for i, rows in enumerate(blocks):
            if 0 <= step - i < len(starts):
                own = slice(starts[step - i], min(starts[step - i] + BLOCK, len(columns)))
                missing = columns[own, : rows.start] - decoded[own, : rows.start]
                wanted[own, rows] += missing @ taken_on[i].t()
                alike[own.stop - own.start, rows.stop - rows.start].append((own, rows))
        for places in alike.values():
            _code_pieces(wanted, decoded, shares, coder, places)
    return wanted, decoded


def _code_pieces(
    wanted: Tensor,
    decoded: Tensor,
    shares: Tensor,
    coder: PieceCoder,
    places: Sequence[tuple[slice, slice]],
) -> None:
    """Fill equally large places of `decoded`, (columns, rows) each."""
    own = torch.stack([wanted[place] for place in places])
    added = [
        shares[k, : k.start] @ (wanted[: k.start, rows] - decoded[: k.start, rows])
        for k, rows in places
    ]
    shifted = own + torch.stack(added)
    within = torch.stack([shares[k, k] for k, _ in places])
    missing = torch.zeros_like(own)
    rows = [rows for _, rows in places]
    for k in range(own.shape[1]):
        near = torch.bmm(within[:, k : k + 1, :k], missing[:, :k])[:, 0]
        found = coder.code_pieces(shifted[:, k] + near, [of.start + k for of, _ in places], rows)
        missing[:, k] = own[:, k] - found
    for place, piece in zip(places, own - missing, strict=True):
        decoded[place] = piece


def least_squares(
    columns: Tensor, decoded: Tensor, hessian: Hessian | None = None
) -> tuple[Tensor, Tensor]:
    """Two of (out_features,), whose ratio is the factor of a row of least squared (output) error.

    Args:
        columns: (in_features, out_features), the weight transposed.
        decoded: what is decoded of it, alike, but for the factors.
        hessian: of which the inputs' part is used.

    Returns:
        Products of what is wanted and what is decoded, and energies of that, never 0.
    """
    energy = product = decoded.new_zeros(decoded.shape[1])
    for own, first in zip(decoded.split(BLOCK), range(0, len(decoded), BLOCK), strict=True):
        rows = slice(first, first + len(own))
        weighted = own if hessian is None else hessian.inputs[rows].to(decoded) @ decoded
        energy = energy + (own * weighted).sum(0)
        product = product + (columns[rows] * weighted).sum(0)
    return product, energy.clamp_(min=torch.finfo(torch.float32).tiny)
