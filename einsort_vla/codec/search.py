"""The search of the `leader` form: the stream of least squared error down each column.

Two implementations of one search: plain PyTorch, which is the definition and runs anywhere, and a
compiled loop, used for tensors on the CPU where numba is installed. Viterbi 1967.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

COLUMNS_AT_ONCE = 1024  # bounds the memory of the PyTorch search


def find_windows(slices: Tensor, lookup: Tensor, b: int, s: int) -> Tensor:
    """The windows of least squared error down each column, by the fastest search there is.

    Args:
        slices: (n_columns, n_slices, d) float32 magnitudes.
        lookup: (2^(s+b), d) float32 table; row = state * 2^b + own bits.
        b: bits a slice adds, at most 8.
        s: bits of memory; the first slice of a column starts from state 0.

    Returns:
        (n_columns, n_slices) int64 windows; each is the last one's low s bits and b new ones.
    """
    compiled = _compile() if slices.device.type == "cpu" else None
    if compiled is None:
        blocks = slices.split(COLUMNS_AT_ONCE)
        return torch.cat([viterbi(block, lookup, b, s) for block in blocks])
    columns, rows = slices.contiguous().numpy(), lookup.t().contiguous().numpy()
    energy = (rows * rows).sum(0)
    windows = np.empty(columns.shape[:2], dtype=np.int64)

    def search(block: slice) -> None:
        for column, found in zip(columns[block], windows[block], strict=True):
            compiled(column, rows, energy, b, s, found)

    n_threads = min(torch.get_num_threads(), len(columns))
    if n_threads == 1:
        search(slice(None))
    else:
        step = -(-len(columns) // n_threads)
        with ThreadPoolExecutor(n_threads) as pool:
            list(pool.map(search, (slice(k, k + step) for k in range(0, len(columns), step))))
    return torch.from_numpy(windows)


def viterbi(slices: Tensor, lookup: Tensor, b: int, s: int) -> Tensor:
    """`find_windows` in plain PyTorch, on any device."""
    n_columns, n_slices, _ = slices.shape
    n_states, n_choices = 2**s, 2**b
    energy = lookup.square().sum(1)
    cost = torch.full((n_columns, n_states), torch.inf, device=slices.device)
    cost[:, 0] = 0
    dropped = torch.empty(n_slices, n_columns, n_states, dtype=torch.uint8, device=slices.device)
    for t in range(n_slices):
        error = torch.addmm(energy, slices[:, t], lookup.t(), alpha=-2)
        error.view(n_columns, n_states, n_choices).add_(cost[:, :, None])
        # A window's next state is its low s bits; its high b bits are what the minimum is over.
        cost, choice = error.view(n_columns, n_choices, n_states).min(1)
        cost -= cost.amin(1, keepdim=True)  # small numbers keep their last digits
        dropped[t] = choice
    windows = torch.empty(n_columns, n_slices, dtype=torch.int64, device=slices.device)
    state = cost.argmin(1)
    for t in range(n_slices - 1, -1, -1):
        high = dropped[t].gather(1, state[:, None])[:, 0].to(torch.int64)
        windows[:, t] = high * n_states + state
        state = windows[:, t] >> b
    return windows


@cache
def _compile() -> Any:
    """The compiled search, or None without numba."""
    try:
        import numba
    except ImportError:
        return None

    return numba.njit(cache=True, nogil=True)(_search_column)


def _search_column(
    slices: np.ndarray, lookup: np.ndarray, energy: np.ndarray, b: int, s: int, windows: np.ndarray
) -> None:
    """One column: slices (n_slices, d), lookup (d, 2^(s+b)); fills windows (n_slices,)."""
    n_slices, d = slices.shape
    n_states, n_choices = 1 << s, 1 << b
    dropped = np.empty((n_slices, n_states), dtype=np.uint8)
    choice = np.empty(n_states, dtype=np.int32)
    error = np.empty(n_states * n_choices, dtype=np.float32)
    cost = np.full(n_states, np.inf, dtype=np.float32)
    cost[0] = 0
    for t in range(n_slices):
        for w in range(n_states * n_choices):
            error[w] = energy[w] + cost[w >> b]
        for k in range(d):
            double = np.float32(2) * slices[t, k]
            for w in range(n_states * n_choices):
                error[w] -= double * lookup[k, w]
        for state in range(n_states):
            cost[state] = error[state]
            choice[state] = 0
        for high in range(1, n_choices):
            offset = high * n_states
            for state in range(n_states):
                better = error[offset + state] < cost[state]
                cost[state] = error[offset + state] if better else cost[state]
                choice[state] = high if better else choice[state]
        least = cost[0]
        for state in range(1, n_states):
            least = min(least, cost[state])
        for state in range(n_states):
            cost[state] -= least
            dropped[t, state] = choice[state]
    state = np.argmin(cost)
    for t in range(n_slices - 1, -1, -1):
        window = dropped[t, state] * n_states + state
        windows[t] = window
        state = window >> b
