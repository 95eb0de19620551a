"""The search of the `leader` form: the stream of least squared error down each column.

A column's stream bites its tail: the bits before its first slice are its own last ones, so that no
slice has fewer choices than another. Two implementations of one search: plain PyTorch, which is the
definition and runs anywhere, and a compiled loop, used for tensors on the CPU where numba is
installed. Viterbi 1967; tail-biting by wrapping around the seam: Shao, Lin and Fossorier 2003.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

COLUMNS_AT_ONCE = 1024  # bounds the memory of the PyTorch search
SEAM = 6  # memories on each side of the seam, after which a survivor no longer knows its start


def bites_tail(n_slices: int, b: int, s: int) -> bool:
    """Whether a column is long enough for its own last s bits to come before it; else zeros do."""
    return n_slices * b >= s


class WindowSearch:
    """Finds the windows of least squared error down each column.

    Args:
        lookup: (2^(s+b), d) float32 table; row = state * 2^b + own bits.
        b: bits a slice adds, at most 8.
        s: bits of memory; the state before the first slice is the one after the last, or 0 in a
            column too short for that.
        is_compiled: use the compiled loop; by default where it can be used.
    """

    def __init__(self, lookup: Tensor, b: int, s: int, is_compiled: bool | None = None) -> None:
        self.lookup = lookup
        self._b, self._s = b, s
        if is_compiled is None:
            is_compiled = lookup.device.type == "cpu" and _compile() is not None
        self._search = self._compiled if is_compiled else self._plain

    def find(self, slices: Tensor) -> Tensor:
        """(n_columns, n_slices) int64 windows of (n_columns, n_slices, d) float32 magnitudes.

        Each window is the last one's low s bits and b new ones.
        """
        n_slices = slices.shape[1]
        bites = self._s > 0 and bites_tail(n_slices, self._b, self._s)
        return self._search(slices, min(n_slices, SEAM * -(-self._s // self._b)) if bites else 0)

    def _plain(self, slices: Tensor, seam: int) -> Tensor:
        return torch.cat([self._plain_block(own, seam) for own in slices.split(COLUMNS_AT_ONCE)])

    def _plain_block(self, slices: Tensor, seam: int) -> Tensor:
        table = self.lookup, self._b, self._s
        if seam == 0:
            start = torch.zeros(len(slices), dtype=torch.int64, device=slices.device)
            return viterbi(slices, *table, start)
        around = torch.cat([slices[:, -seam:], slices[:, :seam]], dim=1)
        start = viterbi(around, *table)[:, seam] >> self._b
        return viterbi(slices, *table, start, is_closed=True)

    def _compiled(self, slices: Tensor, seam: int) -> Tensor:
        """The same by the compiled loop, columns spread over threads."""
        columns, (rows, energy) = slices.contiguous().numpy(), self._by_component
        windows = np.empty(columns.shape[:2], dtype=np.int64)
        n_threads = min(torch.get_num_threads(), len(columns))

        def search(own: slice) -> None:
            _compile()(columns[own], rows, energy, self._b, self._s, seam, windows[own])

        if n_threads == 1:
            search(slice(None))
        else:
            step = -(-len(columns) // n_threads)
            with ThreadPoolExecutor(n_threads) as pool:
                list(pool.map(search, (slice(k, k + step) for k in range(0, len(columns), step))))
        return torch.from_numpy(windows)

    @cached_property
    def _by_component(self) -> tuple[np.ndarray, np.ndarray]:
        """(d, 2^(s+b)) components of the table and (2^(s+b),) squared norms."""
        rows = self.lookup.t().contiguous().numpy()
        return rows, (rows * rows).sum(0)


def viterbi(
    slices: Tensor,
    lookup: Tensor,
    b: int,
    s: int,
    start: Tensor | None = None,
    is_closed: bool = False,
) -> Tensor:
    """The best path in plain PyTorch, on any device.

    Args:
        slices: (n_columns, n_slices, d) float32.
        lookup: as for `WindowSearch`.
        b: bits a slice adds.
        s: bits of memory.
        start: (n_columns,) int64 state before the first slice; any, if None.
        is_closed: the path ends in the state it started from.
    """
    n_columns, n_slices, _ = slices.shape
    n_states, n_choices = 2**s, 2**b
    energy = lookup.square().sum(1)
    cost = slices.new_zeros(n_columns, n_states)
    if start is not None:
        cost.fill_(torch.inf).scatter_(1, start[:, None], 0.0)
    dropped = torch.empty(n_slices, n_columns, n_states, dtype=torch.uint8, device=slices.device)
    for t in range(n_slices):
        error = torch.addmm(energy, slices[:, t], lookup.t(), alpha=-2)
        error.view(n_columns, n_states, n_choices).add_(cost[:, :, None])
        # A window's next state is its low s bits; its high b bits are what the minimum is over.
        cost, choice = error.view(n_columns, n_choices, n_states).min(1)
        cost -= cost.amin(1, keepdim=True)  # small numbers keep their last digits
        dropped[t] = choice
    windows = torch.empty(n_columns, n_slices, dtype=torch.int64, device=slices.device)
    state = start if start is not None and is_closed else cost.argmin(1)
    for t in range(n_slices - 1, -1, -1):
        high = dropped[t].gather(1, state[:, None])[:, 0].to(torch.int64)
        windows[:, t] = high * n_states + state
        state = windows[:, t] >> b
    return windows


@cache
def _compile() -> Any:
    """The compiled search, or None without numba."""
    try:
        from einsort_vla.codec.compiled_search import search_columns
    except ImportError:
        return None
    return search_columns
