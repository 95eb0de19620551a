"""The streams of least squared error: a Viterbi search over all windows (Viterbi 1967).

Streams bite their tail: what comes before the first row is the stream's own end. A first search
goes around once, and on beyond the seam (Shao, Lin and Fossorier 2003). Often it passes the same
window in both laps, and the way between is a ring. Else a second one begins and ends with the
window that the first had at the seam.

Costs are whole numbers of 15 bits that saturate, so that the plain search here, which is the
definition and runs on any device, and the compiled one find the same streams on every processor.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from einsort_vla.codec.curve import layout
from einsort_vla.codec.curve.native import search_native
from einsort_vla.codec.curve.values import GRIDS, new_bits, window_values

MOST = 2**15 - 1  # of a cost, or of a distance; all that is beyond is alike
NO_TARGET = MOST  # beyond all values
MOST_NEW = 5  # bits that a step may add
FINER = 8  # bits of targets below the units of values
BEYOND = 12  # windows beyond the seam; halfway, a path knows neither its start nor its end
AT_ONCE = 2**22  # states of the plain search


@dataclass(frozen=True)
class Search:
    """Finds streams for one code.

    Attributes:
        eighths: of a bit a weight.
        window: bits of a window, all of `POLYNOMIALS`.
        is_compiled: use the compiled search where it can be; it finds the same.
    """

    eighths: int
    window: int
    is_compiled: bool = True

    @property
    def zoom(self) -> int:
        """Bits that distances are moved left by: the finer the code, the smaller they are."""
        return min(max(-(-self.eighths // 8) - 2, 0), 2)

    def find(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Streams whose values come near the targets.

        Args:
            targets: (n, rows) float32, in units of values.

        Returns:
            (n, words) int32, the streams of all segments after each other, and (n, rows) int8
            values.
        """
        if self.window in GRIDS:
            return self._nearest(targets)
        values = window_values(self.window, targets.device)
        low, high = int(values.min()) << FINER, int(values.max()) << FINER
        fine = (targets * 2**FINER).round_().clamp_(low, high).to(torch.int16)
        can_compile = self.is_compiled and targets.device.type == "cpu"
        if can_compile and (
            found := search_native(fine, values, self.zoom, self.eighths, self._beyond)
        ):
            return found
        streams, seen = [], []
        for own in layout.segments(targets.shape[1]):
            parts = fine[:, own].int().split(max(1, AT_ONCE >> self.window))
            streams.append(torch.cat([self._plain(part, values) for part in parts]))
            n_rows = own.stop - own.start
            seen.append(layout.windows(streams[-1], n_rows, self.eighths, self.window))
        return torch.cat(streams, 1), values[torch.cat(seen, 1)].to(torch.int8)

    def _nearest(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Of windows that have no bits in common."""
        top = 2 ** (self.window - 1) - 1
        values = targets.round().clamp_(-top, top).to(torch.int8)
        own, before = values.int() + top + 1, values.new_zeros(len(values), dtype=torch.int32)
        rows = layout.segments(targets.shape[1])
        return torch.cat([layout.pack(own[:, k], before, self.eighths) for k in rows], 1), values

    def _plain(self, targets: Tensor, values: Tensor) -> Tensor:
        rows, near = targets.shape[1], min(targets.shape[1], self._beyond)
        bits = new_bits(self.eighths, rows)
        left = layout.WORD * layout.n_words(rows, self.eighths) - sum(bits)
        free, half = free_bits(left), near // 2
        nothing = targets.new_full((len(targets), len(free)), NO_TARGET)
        laps = torch.cat([targets, nothing, targets[:, :near]], 1)
        path = viterbi(laps, values, self.zoom, [*bits, *free, *bits[:near]])
        seam = rows + len(free)
        before, is_open = path[:, seam], path[:, half] != path[:, seam + half]
        path = torch.cat([path[:, seam : seam + half], path[:, half : rows + 1]], 1)
        if is_open.any():
            path[is_open] = viterbi(
                targets[is_open], values, self.zoom, bits, before[is_open], left
            )
        widths = torch.tensor(bits, device=targets.device)
        return layout.pack((path[:, 1:] & (1 << widths) - 1).int(), before, self.eighths)

    @property
    def _beyond(self) -> int:
        """Rows beyond the seam."""
        return BEYOND * -(-8 * self.window // self.eighths)


def free_bits(left: int) -> list[int]:
    """How many bits each step adds that passes over what is left of the last word."""
    whole = [MOST_NEW] * (left // MOST_NEW)
    return [*whole, left % MOST_NEW] if left % MOST_NEW else whole


def viterbi(
    targets: Tensor,
    values: Tensor,
    zoom: int,
    bits: list[int],
    before: Tensor | None = None,
    left: int = 0,
) -> Tensor:
    """(n, rows + 1) int32 windows of the best path, that before the first row included.

    Args:
        targets: (n, rows) int32, `FINER` than values; of NO_TARGET all values are alike.
        values: (2^window,) int32.
        zoom: bits; see `Search`.
        bits: new bits of each row.
        before: (n,) the window before the first row, to which the last row leads back; any if None.
        left: bits between the last row and the end of the stream.
    """
    n, lag, window = len(targets), targets.new_zeros(len(targets), 1), len(values).bit_length() - 1
    costs = targets.new_full((n, 2**window), MOST if before is not None else 0)
    if before is not None:
        costs.scatter_(1, before.long()[:, None], 0)
    choices = []
    for target, new in zip(targets.unbind(1), bits, strict=True):
        n_choices = 2**new
        keys = costs.view(n, n_choices, -1) << new  # below each cost comes its place, the choice
        keys += torch.arange(n_choices, device=keys.device, dtype=keys.dtype)[:, None]
        best = keys.amin(1)
        choices.append((best & n_choices - 1).to(torch.uint8))
        best = (best >> new) - lag
        lag = best.amin(1, keepdim=True)
        apart = target[:, None] - (values << FINER) << zoom
        errors = apart.clamp_(-MOST - 1, MOST).square_() >> 16
        errors *= target[:, None] != NO_TARGET
        costs = (best[..., None] + errors.view(n, -1, n_choices)).clamp_(max=MOST).flatten(1)
    if before is not None and left < window:
        ends = torch.arange(2**window, device=costs.device)
        closes = ends & (1 << window - left) - 1 == before[:, None] >> left
        costs.masked_fill_(~closes, MOST + 1)
    path = [costs.argmin(1).int()]
    for choice, new in zip(reversed(choices), reversed(bits), strict=True):
        kept = path[-1] >> new
        dropped = choice.gather(1, kept.long()[:, None])[:, 0].int()
        path.append(dropped << window - new | kept)
    return torch.stack(path[::-1], 1)
