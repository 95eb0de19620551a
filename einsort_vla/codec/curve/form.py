"""The `curve` form: integer weights computed from windows of a stream, times a scale a row.

Trellis-coded quantization with a shift register (Marcellin and Fischer 1990) whose values are
computed (QTIP: Tseng et al. 2024, arXiv:2406.11235). The streams are those of least error.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from einsort_vla.codec.curve import layout
from einsort_vla.codec.curve.scales import codes_of, scales, stored
from einsort_vla.codec.curve.search import Search
from einsort_vla.codec.curve.values import (
    CURVE_EIGHTHS,
    DEFAULT_WINDOW,
    GRIDS,
    PERIOD,
    POLYNOMIALS,
    fill,
    predicted_gap_db,
    window_values,
)
from einsort_vla.codec.feedback import code_columns, code_in_blocks, least_squares
from einsort_vla.codec.hessian import Hessian
from einsort_vla.codec.lossless import Lossless
from einsort_vla.codec.rotation import rotated_problem, unrotate
from einsort_vla.codec.spec import CodecSpec, Extent, Shape, StoredPart
from einsort_vla.errors import UsageError

SMALLEST = torch.finfo(torch.float32).tiny
LEAST, MOST = 2.0**-100, 2.0**100  # root mean squares and weights that float32 scales hold
RANGE = 2.0**-14  # between root mean squares of rows; scales reach 2^-15.75
CLIPS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)  # of a row's largest weight, where a grid may end
LEAST_FACTOR = 0.25  # by which feedback may make a row shorter
DECODED_AT_ONCE = 2**22  # weights, whose windows take four times as many bytes as they do


@dataclass(frozen=True)
class Curve(CodecSpec):
    """`bits` a weight, an eighth of a bit apart up to 5, and a window of the stream for each.

    From 6 bits on the window holds the weight's own bits alone, and is its value. `rotated` codes
    the rows after a randomized Hadamard rotation.

    Raises:
        UsageError: there is no such code.
    """

    bits: float
    window: int = DEFAULT_WINDOW
    rotated: bool = False
    form: ClassVar[str] = "curve"

    def __post_init__(self) -> None:
        if self.is_grid and self.window == self.bits:
            return
        if self.is_grid:
            raise UsageError(
                f"curve with {self.bits:g} bits has window={self.bits:g}, its own bits."
            )
        if self.eighths not in CURVE_EIGHTHS or self.eighths != self.bits * PERIOD:
            raise UsageError(
                f"curve has no code of {self.bits:g} bits: there are all eighths from 1 to 5, and "
                "6, 7 and 8."
            )
        if self.window not in POLYNOMIALS:
            raise UsageError(
                f"curve has windows of {', '.join(map(str, POLYNOMIALS))} bits; not {self.window}."
            )

    @property
    def eighths(self) -> int:
        """Of a bit a weight."""
        return math.floor(self.bits * PERIOD) if math.isfinite(self.bits) else 0

    @property
    def is_grid(self) -> bool:
        return self.bits in GRIDS

    def layout(self, shape: Shape) -> dict[str, StoredPart]:
        return {
            "words": StoredPart(torch.int16, (layout.n_words_of(shape, self.eighths),)),
            "scale": StoredPart(torch.uint8, (shape[0],)),
            "unit": StoredPart(torch.float32, (1,)),
        }

    def predicted_distortion(self, in_features: int) -> float:
        return 10 ** (predicted_gap_db(self.eighths, self.window) / 10) * 4.0**-self.bits

    def constants(self) -> bytes:
        """The polynomial; a grid needs none."""
        return b"" if self.is_grid else f"curve {self.window} {POLYNOMIALS[self.window]}".encode()

    def lack(self, extent: Extent) -> str:
        if extent.largest > MOST or extent.smallest < LEAST:
            return (
                f"its rows reach from {extent.smallest:.2g} to {extent.largest:.3g}; scales do not"
            )
        if extent.smallest < RANGE * extent.largest_row:
            return (
                f"a row of the weight has a root mean square of {extent.smallest:.2g}, too small "
                f"beside {extent.largest_row:.2g} of another for scales of a byte"
            )
        return ""

    def encode(self, weight: Tensor, hessian: Hessian | None = None) -> dict[str, Tensor]:
        if self.rotated:
            weight, hessian = rotated_problem(weight, hessian)
        columns, n_rows = weight.t().contiguous(), len(weight)
        del weight  # rotated, it is a second copy
        coder = _Coder(self, columns)
        if hessian is None or hessian.outputs is None:
            wanted, decoded = columns, code_columns(columns, coder, hessian)
        else:
            blocks = list(layout.segments(n_rows))
            wanted, decoded = code_in_blocks(columns, hessian, coder, blocks)
        # At one bit a row may take on so much for others that nothing of it would be best.
        least = LEAST_FACTOR if hessian else 0.0
        return coder.parts(*least_squares(wanted, decoded, hessian), least)

    def decode(self, parts: Mapping[str, Tensor], shape: Shape) -> Tensor:
        rows, columns = shape
        words = parts["words"]
        weight = torch.empty(rows, columns, device=words.device)
        for own, of in layout.pieces(rows, self.eighths):
            self._decode_segment(words[columns * of.start : columns * of.stop], weight[own])
        weight *= scales(parts["scale"], parts["unit"])[:, None]
        return unrotate(weight) if self.rotated else weight

    def _decode_segment(self, words: Tensor, out: Tensor) -> None:
        """Fill (rows, columns) with the values of one segment's words."""
        rows, columns = out.shape
        values = window_values(self.window, words.device)
        streams = layout.from_tiles(words, columns)
        at_once = max(1, DECODED_AT_ONCE // rows)
        for own, block in zip(streams.split(at_once), out.split(at_once, dim=1), strict=True):
            unsigned = own.int() & 2**layout.WORD - 1
            seen = layout.windows(unsigned, rows, self.eighths, self.window)
            block.copy_(values.index_select(0, seen.flatten()).view_as(seen).t())

    @classmethod
    def menu(
        cls,
        weight: Tensor | None = None,
        window: int = DEFAULT_WINDOW,
        rotated: bool = True,
    ) -> Sequence[CodecSpec]:
        """Every eighth of a bit from 1 to 5, and grids above.

        All is rotated: then errors are those of Gaussian weights, and inputs that are larger than
        others harm none (docs/codec.md).
        """
        specs = [cls(eighths / PERIOD, window, rotated) for eighths in CURVE_EIGHTHS]
        specs += [cls(bits, bits, rotated) for bits in GRIDS]
        # Where it costs less than the finest codes, no error at all is the better choice.
        return [*specs, *Lossless.menu(weight)]


FORM = Curve


class _Coder:
    """Codes columns with row scales fixed beforehand; see `ColumnCoder` and `PieceCoder`."""

    def __init__(self, spec: Curve, columns: Tensor) -> None:
        self._eighths = spec.eighths
        self.group, n_rows = columns.shape
        wanted = (_grid_step if spec.is_grid else _curve_step)(spec, columns)
        self._unit = wanted.amax(0, keepdim=True).clamp_(min=SMALLEST)
        self._step = scales(codes_of(wanted, self._unit), self._unit)
        self._divisor = self._step.clamp(min=SMALLEST)
        self._search = Search(spec.eighths, spec.window)
        pieces = layout.pieces(n_rows, self._eighths)
        self._words = {(own.start, own.stop): words for own, words in pieces}
        n_words = layout.n_words_of((n_rows, 1), self._eighths)
        self._streams = torch.empty(self.group, n_words, dtype=torch.int16, device=columns.device)
        self._next = 0

    def prepare(self, columns: Tensor) -> None:
        """Nothing: the row scales hold for all columns."""

    def code(self, columns: Tensor) -> Tensor:
        streams, values = self._search.find(columns / self._divisor)
        self._streams[self._next : self._next + len(columns)] = streams.to(torch.int16)
        self._next += len(columns)
        return values * self._step

    def code_pieces(self, pieces: Tensor, columns: Sequence[int], rows: Sequence[slice]) -> Tensor:
        divisor, step = (torch.stack([of[own] for own in rows])
                         for of in (self._divisor, self._step))  # fmt: skip
        streams, values = self._search.find(pieces / divisor)
        for column, own, stream in zip(columns, rows, streams.to(torch.int16), strict=True):
            self._streams[column, self._words[own.start, own.stop]] = stream
        return values * step

    def parts(self, product: Tensor, energy: Tensor, least: float) -> dict[str, Tensor]:
        """What is stored, with scales of least squared error; see `least_squares`."""
        # What all rows have in common is left to the unit, so that few rows need another step.
        unit = self._unit * (product.sum() / energy.sum())
        tiles = [layout.to_tiles(self._streams[:, of]) for of in self._words.values()]
        factor = product / energy
        factor = factor.sign() * factor.abs().clamp(min=least)
        return {"words": torch.cat(tiles).cpu(), **stored(self._step * factor, unit)}


def _curve_step(spec: Curve, columns: Tensor) -> Tensor:
    """(out_features,) what one unit of the values is: rows come to fill the curve."""
    rms = torch.linalg.vector_norm(columns, dim=0) / math.sqrt(len(columns))
    spread = float(window_values(spec.window, columns.device).float().std())
    return rms.div_(spread * fill(spec.bits))


def _grid_step(spec: Curve, columns: Tensor) -> Tensor:
    """(out_features,) the step of least squared error; large weights may be cut off."""
    top = 2 ** (int(spec.bits) - 1) - 1
    best = columns.abs().amax(0) / top
    least = torch.full_like(best, torch.inf)
    for step in [clip * best for clip in CLIPS]:
        divisor = step.clamp(min=SMALLEST)
        missing = (columns / divisor).round_().clamp_(-top, top).mul_(divisor).sub_(columns)
        error = missing.square_().sum(0)
        best = torch.where(error < least, step, best)
        least = torch.minimum(error, least)
    return best
