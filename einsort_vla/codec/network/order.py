"""Which permutation a sort may use, what of it is stored, and how it is read back (paper 3.1, B).

The order must depend on the place across axes: permuting rows and columns on their own leaves the
singular values as they are (Proposition D.2).
"""

from typing import Literal

import torch
from torch import Tensor

from einsort_vla.codec.network import permutation
from einsort_vla.codec.network.permutation import Storage, log2_factorial
from einsort_vla.codec.packing import pack, packed_bits, unpack

Scope = Literal["none", "full", "row", "group", "axis"]


class Order:
    """Sorts of an (m, c) field of positions.

    Scopes: `full`, all positions in one order; `row`, each row; `group`, each row, but inside each
    run of `size` sorted entries the original order is kept; `axis`, each row folded to axes of
    `size` (and one for what is left over), sorted along one axis after the other; `none`.
    """

    def __init__(self, scope: Scope, size: int, storage: Storage, m: int, c: int) -> None:
        # One order of all positions is that of a single row.
        self._scope: Scope = "row" if scope == "full" else scope
        self._m, self._c = (1, m * c) if scope == "full" else (m, c)
        self._storage: Storage = storage
        self._size = size

    def choose(self, score: Tensor) -> Tensor:
        """What is stored of the order that sorts an (m, c) score, ascending; uint8."""
        if self._scope == "none":
            return torch.zeros(0, dtype=torch.uint8)
        score = score.reshape(self._m, self._c)
        if self._scope == "row":
            return permutation.store(score.argsort(dim=1, stable=True), self._storage)
        if self._scope == "group":
            rank = score.argsort(dim=1, stable=True).argsort(dim=1)
            return pack(rank // self._size, self._group_bits)
        nothing = torch.zeros(0, dtype=torch.uint8)  # a single column has no axis to sort along
        stored = [permutation.store(o, self._storage) for o in self._sort_axes(score)]
        return torch.cat([nothing, *stored])

    def read(self, stored: Tensor) -> Tensor:
        """(m * c,) int64: the position that each sorted place takes its entry from."""
        m, c = self._m, self._c
        places = torch.arange(m * c).view(m, c)
        if self._scope == "none":
            return places.flatten()
        if self._scope == "row":
            return places.gather(1, permutation.restore(stored, c, m, self._storage)).flatten()
        if self._scope == "group":
            groups = unpack(stored, m * c, self._group_bits).view(m, c)
            return places.gather(1, groups.argsort(dim=1, stable=True)).flatten()
        return self._read_axes(stored, places).flatten()

    def n_bits(self) -> int:
        """Bits that `choose` stores, padding included."""
        m, c = self._m, self._c
        if self._scope == "none":
            return 0
        if self._scope == "row":
            return permutation.stored_bits(c, m, self._storage)
        if self._scope == "group":
            return packed_bits(m * c, self._group_bits)
        return sum(permutation.stored_bits(d, m * c // d, self._storage) for d in self._axes)

    def least_bits(self) -> float:
        """log2 of the number of orders there are: what no storage can beat."""
        m, c = self._m, self._c
        if self._scope == "none":
            return 0.0
        if self._scope == "row":
            return m * log2_factorial(c)
        if self._scope == "group":
            runs = [min(self._size, c - k) for k in range(0, c, self._size)]
            return m * (log2_factorial(c) - sum(map(log2_factorial, runs)))
        return sum(m * c // d * log2_factorial(d) for d in self._axes)

    @property
    def _group_bits(self) -> int:
        return max(1, (-(-self._c // self._size) - 1).bit_length())

    @property
    def _axes(self) -> list[int]:
        axes, left = [], self._c
        while left % self._size == 0 and left > 1:
            axes.append(self._size)
            left //= self._size
        return axes + [left] * (left > 1)

    def _sort_axes(self, score: Tensor) -> list[Tensor]:
        """(count, d) permutations of every fibre, axis after axis."""
        field, orders = score.view(self._m, *self._axes), []
        for axis in range(1, field.ndim):
            order = field.argsort(dim=axis, stable=True)
            field = field.gather(axis, order)
            orders.append(order.movedim(axis, -1).flatten(0, -2))
        return orders

    def _read_axes(self, stored: Tensor, places: Tensor) -> Tensor:
        field, start = places.view(self._m, *self._axes), 0
        for axis, d in enumerate(self._axes, start=1):
            count = places.numel() // d
            stop = start + permutation.stored_bits(d, count, self._storage) // 8
            orders = permutation.restore(stored[start:stop], d, count, self._storage)
            moved = field.movedim(axis, -1)
            field = field.gather(axis, orders.view(moved.shape).movedim(-1, axis))
            start = stop
        return field
