"""The compiled loop of the `leader` form's search; needs numba (extra `fast`)."""

import numba
import numpy as np

_compiled = numba.njit(cache=True, nogil=True)


@_compiled
def search_columns(
    columns: np.ndarray,
    lookup: np.ndarray,
    energy: np.ndarray,
    b: int,
    s: int,
    seam: int,
    windows: np.ndarray,
) -> None:
    """Find the windows of `search.WindowSearch`, column by column.

    With a seam, a first pass over the slices around it finds the state that the second, over all
    slices, starts from and ends in.

    Args:
        columns: (n_columns, n_slices, d) float32.
        lookup: (d, 2^(s+b)) float32, the table by component.
        energy: (2^(s+b),) float32, its squared norms.
        b: bits a slice adds.
        s: bits of memory.
        seam: slices on each side of the seam, 0 for streams that start from state 0.
        windows: (n_columns, n_slices) int64, filled.
    """
    n_columns, n_slices, _ = columns.shape
    dropped = np.empty((max(n_slices, 2 * seam), 1 << s), dtype=np.uint8)
    cost = np.empty(1 << s, dtype=np.float32)
    around = np.empty((2 * seam, columns.shape[2]), dtype=np.float32)
    found = np.empty(2 * seam, dtype=np.int64)
    for column in range(n_columns):
        start = 0
        if seam:
            around[:seam], around[seam:] = columns[column, -seam:], columns[column, :seam]
            cost[:] = 0
            _forward(around, lookup, energy, b, cost, dropped)
            _backward(int(np.argmin(cost)), b, s, dropped, found)
            start = int(found[seam]) >> b
        cost[:] = np.inf
        cost[start] = 0
        _forward(columns[column], lookup, energy, b, cost, dropped)
        _backward(start if seam else int(np.argmin(cost)), b, s, dropped, windows[column])


@_compiled
def _forward(
    slices: np.ndarray,
    lookup: np.ndarray,
    energy: np.ndarray,
    b: int,
    cost: np.ndarray,
    dropped: np.ndarray,
) -> None:
    """Cost of the best path to each state, and the bits each step drops on it."""
    n_states, n_choices = len(cost), 1 << b
    error = np.empty(n_states * n_choices, dtype=np.float32)
    by_state = error.reshape(n_states, n_choices)
    energy_by_state = energy.reshape(n_states, n_choices)
    choice = np.empty(len(error), dtype=np.int32)
    for t in range(len(slices)):
        if b > 2:
            for state in range(n_states):
                before = cost[state]
                for own in range(n_choices):
                    by_state[state, own] = energy_by_state[state, own] + before
        else:  # too few neighbours share a state to fill a vector instruction
            for w in range(len(error)):
                error[w] = energy[w] + cost[w >> b]
        for k in range(slices.shape[1]):
            double = np.float32(2) * slices[t, k]
            for w in range(len(error)):
                error[w] -= double * lookup[k, w]
        # A window's next state is its low s bits; over its high b bits goes a knock-out, whose
        # rounds are long enough for vector instructions.
        choice[:] = 0
        half = len(error) >> 1
        while half >= n_states:
            round_bit = half // n_states
            for w in range(half):
                is_better = error[half + w] < error[w]
                choice[w] = choice[half + w] + round_bit if is_better else choice[w]
                error[w] = min(error[half + w], error[w])
            half >>= 1
        least = error[0]
        for state in range(n_states):
            least = min(least, error[state])
        for state in range(n_states):
            cost[state] = error[state] - least  # small numbers keep their last digits
            dropped[t, state] = choice[state]


@_compiled
def _backward(state: int, b: int, s: int, dropped: np.ndarray, windows: np.ndarray) -> None:
    """The windows of the best path to a last state, from the last to the first."""
    for t in range(len(windows) - 1, -1, -1):
        window = (int(dropped[t, state]) << s) + state
        windows[t] = window
        state = window >> b
