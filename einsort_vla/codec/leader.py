"""The `leader` form: signs apart, magnitudes by a windowed look-up found with a Viterbi search.

Slices of d neighbouring weights run down one input column; their b index bits follow each other in
the stream. A slice is looked up by the window of its own b bits and the s bits before them (the
column's last bits before its first), so that decoding is one look-up a slice, from anywhere.
Trellis-coded quantization with a shift register: Marcellin and Fischer 1990; the ties between
permuted magnitudes: Slepian 1965.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from einsort_vla.codec import tables
from einsort_vla.codec.feedback import BLOCK, code_plainly, code_with_feedback
from einsort_vla.codec.lossless import Lossless
from einsort_vla.codec.packing import pack, packed_bits, unpack_bits
from einsort_vla.codec.rotation import rotate, unrotate
from einsort_vla.codec.search import bites_tail, find_windows
from einsort_vla.codec.spec import SCALE_BITS, CodecSpec, Shape
from einsort_vla.errors import UsageError

MAX_COMPANDED_BITS = 14
TABLE_BITS = 16  # of a refined table's numbers, float16
REFINEMENTS = 12  # Lloyd iterations; the last ones change the error by less than 0.01 dB


@dataclass(frozen=True)
class Leader(CodecSpec):
    """Slices of `d` magnitudes down a column, `b` index bits each, a window of `s` + `b` bits.

    With d = 1, s = 0 and b >= 5 the table is a companded grid. `rotated` codes the rows after a
    randomized Hadamard rotation. `refined` fits the table to the matrix and stores it with it.

    Raises:
        UsageError: there is no table for these parameters.
    """

    d: int
    b: int
    s: int
    rotated: bool = False
    refined: bool = False
    form: ClassVar[str] = "leader"

    def __post_init__(self) -> None:
        if not (self.is_companded or self.window in tables.available()):
            raise UsageError(
                f"there is no leader table for d={self.d} b={self.b} s={self.s}. "
                f"Tables: {', '.join(map(str, sorted(tables.available())))} as (d, b, s)."
            )
        if self.refined and self.is_companded:
            raise UsageError(f"only a table is refined; d=1 b={self.b} s=0 is a companded grid.")

    @property
    def window(self) -> tuple[int, int, int]:
        return (self.d, self.b, self.s)

    @property
    def is_companded(self) -> bool:
        in_range = tables.COMPANDED_FROM <= self.b <= MAX_COMPANDED_BITS
        return self.d == 1 and self.s == 0 and in_range

    @property
    def parts(self) -> tuple[str, ...]:
        return ("signs", "indices", "scale", *(("table",) if self.refined else ()))

    @property
    def bits_per_weight(self) -> float:
        return 1 + self.b / self.d

    def n_bits(self, shape: Shape) -> int:
        rows, columns = shape
        indices = packed_bits(columns * -(-rows // self.d), self.b)
        table = TABLE_BITS * self.d * 2 ** (self.s + self.b) if self.refined else 0
        return packed_bits(rows * columns, 1) + indices + SCALE_BITS * rows + table

    def predicted_distortion(self, in_features: int) -> float:
        if not self.is_companded:
            return tables.distortion(*self.window)
        # Panter and Dite 1951: sqrt(3) pi / 2 times 4^-R for the optimal compander of a Gaussian.
        return math.sqrt(3) * math.pi / 2 * 4.0 ** -(1 + self.b)

    def table(self) -> Tensor:
        """(2^(s+b), d) float32 magnitudes for unit variance."""
        if self.is_companded:
            return tables.companded_grid(self.b)
        return tables.table(*self.window).float()

    def encode(self, weight: Tensor, hessian: Tensor | None = None) -> dict[str, Tensor]:
        if self.rotated:
            weight = rotate(weight)
            hessian = None if hessian is None else rotate(rotate(hessian.double()).t())
        coder = _Coder(self, weight)
        if self.refined:
            coder.refine(weight)
        if hessian is None:
            unscaled = code_plainly(weight, coder)
        else:
            unscaled = code_with_feedback(weight, hessian, coder)
        return coder.parts(least_squares_scale(weight, unscaled.div_(coder.rms), hessian))

    def decode(self, parts: Mapping[str, Tensor], shape: Shape) -> Tensor:
        rows, columns = shape
        table = parts["table"].cpu().float() if self.refined else self.table()
        weight = torch.empty(rows, columns)
        for first in range(0, columns, BLOCK):
            n = min(BLOCK, columns - first)
            signs = unpack_bits(parts["signs"], n * rows, first * rows).view(n, rows).t()
            magnitude = _columns(table[self._windows(parts["indices"], rows, first, n)], rows)
            weight[:, first : first + n] = torch.where(signs.bool(), -magnitude, magnitude)
        weight *= parts["scale"].cpu().float()[:, None]
        return unrotate(weight) if self.rotated else weight

    def _windows(self, indices: Tensor, rows: int, first: int, n: int) -> Tensor:
        """(n, n_slices) windows of the `n` columns from `first` on."""
        n_slices = -(-rows // self.d)
        length = n_slices * self.b
        stream = unpack_bits(indices, n * length, first * length).view(n, length)
        if self.s and bites_tail(n_slices, self.b, self.s):
            stream = torch.cat([stream[:, -self.s :], stream], dim=1)
        else:
            stream = functional.pad(stream, (self.s, 0))
        place = (2 ** torch.arange(self.s + self.b - 1, -1, -1)).to(torch.int32)
        return (stream.unfold(1, self.s + self.b, self.b) * place).sum(-1)

    @classmethod
    def menu(
        cls,
        weight: Tensor | None = None,
        window: int = 8,
        rotated: bool = False,
        refined: bool = False,
    ) -> Sequence[CodecSpec]:
        """Tables of one window, grids above them; a window of 8 bits makes an index a byte."""
        trained = [(d, b, s) for d, b, s in tables.available() if b + s == window]
        if not trained:
            windows = sorted({b + s for _, b, s in tables.available()})
            raise UsageError(f"leader has tables for windows of {windows} bits, not {window}.")
        finest = max(b for d, b, _ in trained if d == 1)
        grids = [(1, b, 0) for b in range(finest + 1, MAX_COMPANDED_BITS + 1)]
        specs = [cls(*table, rotated, refined) for table in trained]
        specs += [cls(*grid, rotated) for grid in grids]
        specs.sort(key=lambda leader: leader.bits_per_weight)
        # Where it costs less than the finest codes, no error at all is the better choice.
        return [*specs, *Lossless.menu(weight)]


def least_squares_scale(weight: Tensor, signed: Tensor, hessian: Tensor | None = None) -> Tensor:
    """(out_features,) float16: the row scale of least squared (output) error of a coded matrix."""
    weighted = signed if hessian is None else signed @ hessian.to(signed)
    energy = torch.einsum("rc,rc->r", signed, weighted)
    energy.clamp_(min=torch.finfo(torch.float32).tiny)
    return (torch.einsum("rc,rc->r", weight, weighted) / energy).to(torch.float16).cpu()


class _Coder:
    """Codes columns with row scales fixed beforehand; see `feedback.ColumnCoder`."""

    def __init__(self, spec: Leader, weight: Tensor) -> None:
        self._spec, self._lookup = spec, spec.table().to(weight.device)
        self.group = weight.shape[1]
        self.rms = torch.linalg.vector_norm(weight, dim=1, keepdim=True) / math.sqrt(self.group)
        self.rms.clamp_(min=torch.finfo(torch.float32).tiny)
        self._signs: list[Tensor] = []
        self._windows: list[Tensor] = []

    def refine(self, weight: Tensor) -> None:
        """Fit the table to the matrix, by Lloyd iterations through the search."""
        slices = _slices((weight / self.rms).abs(), self._spec.d)
        for _ in range(REFINEMENTS):
            windows = self._find(slices)
            self._lookup = tables.centroids(self._lookup, windows, slices)
        self._lookup = self._lookup.to(torch.float16).float()

    def prepare(self, columns: Tensor) -> None:
        """Nothing: the row scales hold for all columns."""

    def code(self, columns: Tensor) -> Tensor:
        signs = columns < 0
        windows = self._find(_slices((columns / self.rms).abs(), self._spec.d))
        self._signs.append(signs.t())  # column by column, as the slices
        self._windows.append((windows % 2**self._spec.b).to(torch.int16))
        magnitude = _columns(self._lookup[windows], len(columns)) * self.rms
        return torch.where(signs, -magnitude, magnitude)

    def parts(self, scale: Tensor) -> dict[str, Tensor]:
        signs, windows = torch.cat(self._signs), torch.cat(self._windows)
        found = {"signs": pack(signs, 1), "indices": pack(windows, self._spec.b), "scale": scale}
        if self._spec.refined:
            found["table"] = self._lookup.to(torch.float16).cpu()
        return found

    def _find(self, slices: Tensor) -> Tensor:
        """(k, n_slices) windows of (k, n_slices, d) magnitudes."""
        if self._spec.is_companded:
            return _nearest_level(slices[..., 0], self._lookup[:, 0])
        return find_windows(slices, self._lookup, self._spec.b, self._spec.s)


def _nearest_level(magnitude: Tensor, levels: Tensor) -> Tensor:
    return torch.bucketize(magnitude.contiguous(), (levels[1:] + levels[:-1]) / 2)


def _slices(magnitude: Tensor, d: int) -> Tensor:
    """(rows, columns) to (columns, ceil(rows / d), d), zeros after the last row."""
    padded = functional.pad(magnitude.t(), (0, -len(magnitude) % d))
    return padded.reshape(magnitude.shape[1], -1, d)


def _columns(slices: Tensor, rows: int) -> Tensor:
    """(columns, n_slices, d) to (rows, columns)."""
    return slices.flatten(1)[:, :rows].t()
