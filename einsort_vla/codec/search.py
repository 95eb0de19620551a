"""The search of the `leader` form: the stream of least squared error down each column.

A column's stream bites its tail: the bits before its first slice are its own last ones, so that no
slice has fewer choices than another. Two implementations of one search: plain PyTorch, which is the
definition and runs anywhere, and a compiled loop, used for tensors on the CPU where numba is
installed. Viterbi 1967; tail-biting by wrapping around the seam: Shao, Lin and Fossorier 2003.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

COLUMNS_AT_ONCE = 1024  # bounds the memory of the PyTorch search
SEAM = 6  # memories on each side of the seam, after which a survivor no longer knows its start
FREE = -1  # a start state that the search may choose


def bites_tail(n_slices: int, b: int, s: int) -> bool:
    """Whether a column is long enough for its own last s bits to come before it; else zeros do."""
    return n_slices * b >= s


def find_windows(slices: Tensor, lookup: Tensor, b: int, s: int) -> Tensor:
    """The windows of least squared error down each column, by the fastest search there is.

    Args:
        slices: (n_columns, n_slices, d) float32 magnitudes.
        lookup: (2^(s+b), d) float32 table; row = state * 2^b + own bits.
        b: bits a slice adds, at most 8.
        s: bits of memory; the state before the first slice is the one after the last, or 0 in a
            column too short for that.

    Returns:
        (n_columns, n_slices) int64 windows; each is the last one's low s bits and b new ones.
    """
    n_columns, n_slices, _ = slices.shape
    search = _compiled_search if slices.device.type == "cpu" and _compile() else _plain_search
    start = torch.full((n_columns,), FREE if s == 0 else 0, device=slices.device)
    if s == 0 or not bites_tail(n_slices, b, s):
        return search(slices, lookup, b, s, start, False)
    k = min(n_slices, SEAM * -(-s // b))
    seam = torch.cat([slices[:, -k:], slices[:, :k]], dim=1)
    start = search(seam, lookup, b, s, torch.full_like(start, FREE), False)[:, k] >> b
    return search(slices, lookup, b, s, start, True)


def viterbi(
    slices: Tensor, lookup: Tensor, b: int, s: int, start: Tensor, is_closed: bool
) -> Tensor:
    """The best path in plain PyTorch, on any device.

    Args:
        slices: (n_columns, n_slices, d) float32.
        lookup: as for `find_windows`.
        b: bits a slice adds.
        s: bits of memory.
        start: (n_columns,) int64 state before the first slice, or FREE.
        is_closed: the path ends in the state it started from.
    """
    n_columns, n_slices, _ = slices.shape
    n_states, n_choices = 2**s, 2**b
    energy = lookup.square().sum(1)
    states = torch.arange(n_states, device=slices.device)
    allowed = (start[:, None] == FREE) | (start[:, None] == states)
    cost = torch.where(allowed, 0.0, torch.inf)
    dropped = torch.empty(n_slices, n_columns, n_states, dtype=torch.uint8, device=slices.device)
    for t in range(n_slices):
        error = torch.addmm(energy, slices[:, t], lookup.t(), alpha=-2)
        error.view(n_columns, n_states, n_choices).add_(cost[:, :, None])
        # A window's next state is its low s bits; its high b bits are what the minimum is over.
        cost, choice = error.view(n_columns, n_choices, n_states).min(1)
        cost -= cost.amin(1, keepdim=True)  # small numbers keep their last digits
        dropped[t] = choice
    windows = torch.empty(n_columns, n_slices, dtype=torch.int64, device=slices.device)
    state = start if is_closed else cost.argmin(1)
    for t in range(n_slices - 1, -1, -1):
        high = dropped[t].gather(1, state[:, None])[:, 0].to(torch.int64)
        windows[:, t] = high * n_states + state
        state = windows[:, t] >> b
    return windows


def _plain_search(
    slices: Tensor, lookup: Tensor, b: int, s: int, start: Tensor, is_closed: bool
) -> Tensor:
    blocks = zip(slices.split(COLUMNS_AT_ONCE), start.split(COLUMNS_AT_ONCE), strict=True)
    return torch.cat([viterbi(block, lookup, b, s, own, is_closed) for block, own in blocks])


def _compiled_search(
    slices: Tensor, lookup: Tensor, b: int, s: int, start: Tensor, is_closed: bool
) -> Tensor:
    """`viterbi` by the compiled loop, columns spread over threads."""
    columns, starts = slices.contiguous().numpy(), start.numpy()
    rows = lookup.t().contiguous().numpy()
    energy = (rows * rows).sum(0)
    windows = np.empty(columns.shape[:2], dtype=np.int64)
    n_threads = min(torch.get_num_threads(), len(columns))

    def search(own: slice) -> None:
        _compile()(columns[own], rows, energy, b, s, starts[own], is_closed, windows[own])

    if n_threads == 1:
        search(slice(None))
    else:
        step = -(-len(columns) // n_threads)
        with ThreadPoolExecutor(n_threads) as pool:
            list(pool.map(search, (slice(k, k + step) for k in range(0, len(columns), step))))
    return torch.from_numpy(windows)


@cache
def _compile() -> Any:
    """The compiled search, or None without numba."""
    try:
        import numba
    except ImportError:
        return None

    return numba.njit(cache=True, nogil=True)(_search_columns)


def _search_columns(
    columns: np.ndarray,
    lookup: np.ndarray,
    energy: np.ndarray,
    b: int,
    s: int,
    starts: np.ndarray,
    is_closed: bool,
    windows: np.ndarray,
) -> None:
    """columns (n, n_slices, d), lookup (d, 2^(s+b)), energy (2^(s+b),); fills windows."""
    n_columns, n_slices, d = columns.shape
    n_states, n_choices = 1 << s, 1 << b
    dropped = np.empty((n_slices, n_states), dtype=np.uint8)
    error = np.empty(n_states * n_choices, dtype=np.float32)
    by_state = error.reshape(n_states, n_choices)
    by_next = error.reshape(n_choices, n_states)
    energy_by_state = energy.reshape(n_states, n_choices)
    cost = np.empty(n_states, dtype=np.float32)
    choice = np.empty(n_states, dtype=np.int32)
    for column in range(n_columns):
        start = starts[column]
        cost[:] = 0 if start < 0 else np.inf
        if start >= 0:
            cost[start] = 0
        for t in range(n_slices):
            if b > 2:
                for state in range(n_states):
                    before = cost[state]
                    for own in range(n_choices):
                        by_state[state, own] = energy_by_state[state, own] + before
            else:  # too few neighbours share a state to fill a vector instruction
                for w in range(len(error)):
                    error[w] = energy[w] + cost[w >> b]
            for k in range(d):
                double = np.float32(2) * columns[column, t, k]
                for w in range(len(error)):
                    error[w] -= double * lookup[k, w]
            # A window's next state is its low s bits; its high b bits are what is chosen.
            for state in range(n_states):
                cost[state], choice[state] = by_next[0, state], 0
            for high in range(1, n_choices):
                for state in range(n_states):
                    found, least = by_next[high, state], cost[state]
                    choice[state] = high if found < least else choice[state]
                    cost[state] = min(found, least)
            least = cost[0]
            for state in range(n_states):
                least = min(least, cost[state])
            for state in range(n_states):
                cost[state] -= least
                dropped[t, state] = choice[state]
        state = start if is_closed else np.argmin(cost)
        for t in range(n_slices - 1, -1, -1):
            window = dropped[t, state] * n_states + state
            windows[column, t] = window
            state = window >> b
