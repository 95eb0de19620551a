"""The `leader` form: signs apart, magnitudes by a windowed look-up found with a Viterbi search.

Slices of d neighbouring weights run down one input column; their b index bits follow each other in
the stream. A slice is looked up by the window of its own b bits and the s bits before them (the
column's last bits before its first), so that decoding is one look-up a slice, from anywhere.
Trellis-coded quantization with a shift register: Marcellin and Fischer 1990; the ties between
permuted magnitudes: Slepian 1965.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from einsort_vla.codec import tables
from einsort_vla.codec.feedback import BLOCK, code_columns, least_squares
from einsort_vla.codec.hessian import Hessian
from einsort_vla.codec.lossless import Lossless
from einsort_vla.codec.packing import pack, smallest_int, unpack
from einsort_vla.codec.rotation import has_outliers, rotated_problem, unrotate
from einsort_vla.codec.search import WindowSearch, bites_tail
from einsort_vla.codec.spec import FLOAT16_MAX, CodecSpec, Shape, StoredPart, stream
from einsort_vla.errors import UsageError

MAX_COMPANDED_BITS = 14
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
    def bits_per_weight(self) -> float:
        return 1 + self.b / self.d

    def layout(self, shape: Shape) -> dict[str, StoredPart]:
        rows, columns = shape
        layout = {
            "signs": stream(rows * columns),
            "indices": stream(columns * -(-rows // self.d) * self.b),
            "scale": StoredPart(torch.float16, (rows,)),
        }
        if self.refined:
            layout["table"] = StoredPart(torch.float16, (2 ** (self.s + self.b), self.d))
        return layout

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

    def constants(self) -> bytes:
        """The shipped table; a companded grid is computed, a refined table is stored."""
        if self.is_companded or self.refined:
            return b""
        return str(self.window).encode() + tables.table(*self.window).numpy().tobytes()

    def encode(self, weight: Tensor, hessian: Hessian | None = None) -> dict[str, Tensor]:
        if self.rotated:
            weight, hessian = rotated_problem(weight, hessian)
        columns = weight.t().contiguous()
        coder = _Coder(self, columns)
        unscaled = code_columns(columns, coder, hessian)
        product, energy = least_squares(columns, unscaled.div_(coder.rms), hessian)
        # Of rows that reach the end of the range the best scale may lie a little beyond it.
        scale = (product / energy).clamp_(-FLOAT16_MAX, FLOAT16_MAX)
        return coder.parts(scale.to(torch.float16).cpu())

    def decode(self, parts: Mapping[str, Tensor], shape: Shape) -> Tensor:
        rows, columns = shape
        device = parts["indices"].device
        table = parts["table"].float() if self.refined else table_on(self, device)
        weight = torch.empty(rows, columns, device=device)
        for first in range(0, columns, BLOCK):
            n = min(BLOCK, columns - first)
            signs = unpack(parts["signs"], n * rows, 1, first * rows).view(n, rows).t()
            windows = self._windows(parts["indices"], rows, first, n)
            magnitude = table[windows].flatten(1)[:, :rows].t()
            weight[:, first : first + n] = torch.where(signs.bool(), -magnitude, magnitude)
        weight *= parts["scale"].float()[:, None]
        return unrotate(weight) if self.rotated else weight

    def _windows(self, indices: Tensor, rows: int, first: int, n: int) -> Tensor:
        """(n, n_slices) windows of the `n` columns from `first` on."""
        n_slices = -(-rows // self.d)
        windows = unpack(indices, n * n_slices, self.b, first * n_slices).view(n, n_slices)
        wraps = bites_tail(n_slices, self.b, self.s)
        n_joined = 1  # slices whose bits each window has
        while n_joined * self.b < self.s + self.b:
            before = windows.roll(n_joined, dims=1)
            if not wraps:
                before[:, :n_joined] = 0
            windows = before << n_joined * self.b | windows
            n_joined *= 2
        return windows & 2 ** (self.s + self.b) - 1

    @classmethod
    def menu(
        cls,
        weight: Tensor | None = None,
        window: int = 8,
        rotated: bool | None = None,
        refined: bool = False,
    ) -> Sequence[CodecSpec]:
        """Tables of one window, grids above them; a window of 8 bits makes an index a byte.

        Unless it is said whether to rotate, a matrix is rotated if it has outliers.
        """
        if rotated is None:
            rotated = weight is not None and has_outliers(weight)
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


FORM = Leader


@functools.lru_cache(maxsize=64)  # one for all matrices
def table_on(spec: Leader, device: torch.device) -> Tensor:
    """The table of a code that is not refined, (2^(s+b), d) float32, on a device."""
    return spec.table().to(device)


class _Coder:
    """Codes columns with row scales fixed beforehand; see `feedback.ColumnCoder`."""

    def __init__(self, spec: Leader, columns: Tensor) -> None:
        self._spec = spec
        self.group = len(columns)
        self.rms = torch.linalg.vector_norm(columns, dim=0) / math.sqrt(self.group)
        self.rms.clamp_(min=torch.finfo(torch.float32).tiny)
        self._use(spec.table().to(columns.device))
        if spec.refined:
            self._refine(columns)
        n_slices = -(-columns.shape[1] // spec.d)
        self._signs = torch.empty(columns.shape, dtype=torch.bool)
        self._indices = torch.empty(len(columns), n_slices, dtype=smallest_int(spec.b))
        self._n_coded = 0

    def prepare(self, columns: Tensor) -> None:
        """Nothing: the row scales hold for all columns."""

    def code(self, columns: Tensor) -> Tensor:
        own = slice(self._n_coded, self._n_coded + len(columns))
        self._n_coded = own.stop
        windows = self._find(self._slices(columns))
        self._signs[own] = torch.signbit(columns)
        self._indices[own] = windows
        slices = self._lookup.index_select(0, windows.flatten())
        magnitude = slices.view(len(columns), -1)[:, : columns.shape[1]] * self.rms
        return torch.copysign(magnitude, columns)

    def parts(self, scale: Tensor) -> dict[str, Tensor]:
        self._indices &= 2**self._spec.b - 1  # of each window its own bits
        signs, indices = pack(self._signs, 1), pack(self._indices, self._spec.b)
        found = {"signs": signs, "indices": indices, "scale": scale}
        if self._spec.refined:
            found["table"] = self._lookup.to(torch.float16).cpu()
        return found

    def _refine(self, columns: Tensor) -> None:
        """Fit the table to the matrix, by Lloyd iterations through the search."""
        slices = self._slices(columns)
        for _ in range(REFINEMENTS):
            found = tables.assigned(self._find(slices), slices, len(self._lookup))
            self._use(tables.centroids(self._lookup, *found))
        self._use(self._lookup.to(torch.float16).float())

    def _use(self, lookup: Tensor) -> None:
        self._lookup = lookup
        if self._spec.is_companded:
            levels = lookup[:, 0]
            middles = (levels[1:] + levels[:-1]) / 2
            self._find = lambda slices: torch.bucketize(slices[..., 0], middles)
        else:
            self._find = WindowSearch(lookup, self._spec.b, self._spec.s).find

    def _slices(self, columns: Tensor) -> Tensor:
        """(k, out_features) to (k, ceil(out_features / d), d) magnitudes, zeros after the last."""
        magnitude = (columns / self.rms).abs_()
        padded = functional.pad(magnitude, (0, -columns.shape[1] % self._spec.d))
        return padded.unflatten(1, (-1, self._spec.d))
