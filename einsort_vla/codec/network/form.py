"""The `network` form: the EinSort paper (arXiv 2606.08565, section 3 and appendices C, G, H).

fold into slices -> score -> sort all slices alike -> decompose -> fix the gauge; signs may be
stored apart. Everything is counted: cores in float16, the order, signs, gauge rows. Counted so, it
loses to plain rounding at equal bits; it is here as the paper's reference implementation.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor
from torch.nn import functional

from einsort_vla.codec.hessian import DAMPING, Hessian, cholesky, damped
from einsort_vla.codec.network import gauge
from einsort_vla.codec.network.decompose import DECOMPOSITIONS, Fold, Name, modes_of, multiply
from einsort_vla.codec.network.order import Order, Scope
from einsort_vla.codec.network.permutation import Storage
from einsort_vla.codec.network.score import Map, Reduction, score
from einsort_vla.codec.packing import pack, unpack
from einsort_vla.codec.spec import CodecSpec, Shape, StoredPart, check_padding, stream
from einsort_vla.errors import (
    CheckpointError,
    NumericsError,
    ShapeError,
    UsageError,
    unknown_name,
)

MOST = 2**31 - 1  # of a rank, of slices, of a size
MOST_SORTED = 2**26
POWERS = (1 / 64, 64.0)
CORE_ROUNDING = 2.0**-6  # of a core's norm; float16 takes 2^-11 in its normal range
MENU_SLICES = (8, 32)  # fewer slices fit better and cost a longer order
_CHOICES = {"decomposition": Name, "fold": Fold, "map": Map, "reduction": Reduction, "scope": Scope,
            "storage": Storage}  # fmt: skip


@dataclass(frozen=True)
class Network(CodecSpec):
    """A sorted tensor network of one matrix. Defaults are the paper's best recipe (table 1).

    `slices` row blocks share one order, chosen by `map` of `power` reduced by `reduction`; `scope`
    and `size` say which orders there are. `sign_split` decomposes |x|^power instead of x. `rank`
    bounds every bond of the `decomposition` of the axes that `fold` makes; `is_gauged` leaves out
    what a gauge can make an identity. `column_scaled` divides input columns by a stored scale
    before all this (ASVD).

    Raises:
        UsageError: a name is unknown or a number out of range.
    """

    rank: int
    slices: int = 8
    decomposition: Name = "svd"
    map: Map = "abs_power"
    power: float = 1.0
    reduction: Reduction = "prod"
    scope: Scope = "full"
    size: int = 2
    sign_split: bool = True
    is_gauged: bool = True
    column_scaled: bool = False
    storage: Storage = "lehmer"
    fold: Fold = "factors"
    form: ClassVar[str] = "network"

    def __post_init__(self) -> None:
        for field, names in _CHOICES.items():
            if getattr(self, field) not in get_args(names):
                raise unknown_name(f"network {field}", getattr(self, field), get_args(names))
        whole = (self.rank, 1), (self.slices, 1), (self.size, 2)
        if not (all(least <= n <= MOST for n, least in whole) and self.power > 0):
            raise UsageError(
                f"a network needs rank and slices of 1 or more, size 2 or more, power above 0; "
                f"not rank={self.rank} slices={self.slices} size={self.size} power={self.power}."
            )
        if not POWERS[0] <= self.power <= POWERS[1]:
            raise UsageError(f"the power of a network is 1/64 to 64; not {self.power}.")

    @property
    def is_plain_svd(self) -> bool:
        """Whether the decoded matrix is a product of two factors, with nothing sorted or split."""
        unsorted = self.scope == "none" and not self.sign_split
        return unsorted and self.decomposition == "svd" and not self.column_scaled

    def layout(self, shape: Shape) -> dict[str, StoredPart]:
        rows = -(-shape[0] // self.slices) * self.slices
        check_padding(shape, rows * shape[1], f"{self.slices} slices of a network")
        if (n := rows // self.slices * shape[1]) > MOST_SORTED:
            raise ShapeError(f"a network sorts {MOST_SORTED} places of a slice at most, not {n}.")
        layout = {
            "cores": StoredPart(torch.float16, (self.n_core_numbers(shape),)),
            "gauge_rows": stream(sum(m for m, _ in self._gauged(shape))),
            "order": stream(self._order(shape).n_bits()),
        }
        if self.sign_split:
            layout["signs"] = stream(shape[0] * shape[1])
        if self.column_scaled:
            layout["column_scale"] = StoredPart(torch.float16, shape[1:])
        return layout

    def n_core_numbers(self, shape: Shape) -> int:
        """Numbers of the stored cores: what the paper counts."""
        total = sum(math.prod(core) for core in self._core_shapes(shape))
        return total - sum(r * r for _, r in self._gauged(shape))

    def order_bits(self, shape: Shape) -> dict[str, int]:
        return {name: self._order(shape, name).n_bits() for name in get_args(Storage)}

    def predicted_distortion(self, in_features: int) -> float:
        raise UsageError("the error of a network depends on the weights; use `choices`.")

    def encode(self, weight: Tensor, hessian: Hessian | None = None) -> dict[str, Tensor]:
        shape = (weight.shape[0], weight.shape[1])
        parts: dict[str, Tensor] = {}
        if self.column_scaled:
            scale = _column_scale(weight, hessian)
            parts["column_scale"] = scale
            weight = weight * scale.float()
        if self.sign_split:
            parts["signs"] = pack(weight < 0, 1)
        parts["order"], tensor = self._sorted(weight)
        folded = tensor.reshape(self._modes(shape))
        try:
            parts["cores"], parts["gauge_rows"] = self._fit(folded, hessian)
        except torch.linalg.LinAlgError as error:  # pyright: ignore[reportPrivateImportUsage]
            raise NumericsError(f"its tensor network cannot be computed: {error}") from error
        return parts

    def _fit(self, folded: Tensor, hessian: Hessian | None) -> tuple[Tensor, Tensor]:
        """The cores of a folded tensor and the rows that their gauge fixes, as they are stored."""
        if hessian is not None and self.is_plain_svd:
            cores = _whitened_svd(folded, self.rank, hessian.inputs)
        else:
            cores = DECOMPOSITIONS[self.decomposition].fit(folded, self.rank)
        return self._pack_cores(cores, folded.ndim)

    def decode(self, parts: Mapping[str, Tensor], shape: Shape) -> Tensor:
        rows, columns = shape
        block = -(-rows // self.slices)
        cores = self._unpack_cores(parts["cores"].cpu(), parts["gauge_rows"].cpu(), shape)
        found = DECOMPOSITIONS[self.decomposition].contract(cores).reshape(self.slices, -1)
        result = torch.empty_like(found)
        result[:, self._order(shape).read(parts["order"].cpu())] = found
        weight = result.view(self.slices * block, columns)[:rows]
        if self.sign_split:
            negative = unpack(parts["signs"].cpu(), rows * columns, 1).view(shape).bool()
            size = weight.clamp_min(0) ** (1 / self.power)
            weight = torch.where(negative, -size, size)
        if self.column_scaled:
            weight = weight / parts["column_scale"].cpu().double()
        decoded = weight.float()
        if not decoded.isfinite().all():
            raise CheckpointError("its tensor network multiplies to NaN or infinity.")
        return decoded

    def check(self, parts: Mapping[str, Tensor], shape: Shape) -> None:
        self._unpack_cores(parts["cores"], parts["gauge_rows"], shape)
        if self.storage == "index":  # a Lehmer code is an order, whatever it says
            self._order(shape).read(parts["order"])
        if self.column_scaled and not (parts["column_scale"] > 0).all():
            raise CheckpointError("an input column is divided by 0 or less.")

    @classmethod
    def menu(
        cls,
        weight: Tensor | None = None,
        decomposition: str = "svd",
        slices: int = 0,
        map: str = "abs_power",
        power: float = 1.0,
        reduction: str = "prod",
        scope: str = "full",
        size: int = 2,
        sign_split: bool = True,
        is_gauged: bool = True,
        column_scaled: bool = False,
        storage: str = "lehmer",
        fold: str = "factors",
    ) -> Sequence["Network"]:
        """All ranks, with `slices` row blocks or, for 0, with each of MENU_SLICES."""
        names = {"decomposition": decomposition, "map": map, "reduction": reduction, "scope": scope,
                 "storage": storage, "fold": fold}  # fmt: skip
        flags = {"sign_split": sign_split, "is_gauged": is_gauged, "column_scaled": column_scaled}
        fixed: dict[str, Any] = {**names, **flags, "power": power, "size": size}
        bases = [cls(1, n, **fixed) for n in _slices_tried(slices, scope)]
        if weight is None:
            return []
        longest = min(weight.shape)
        ranks = sorted({max(1, round(longest * 2 ** (-k / 2))) for k in range(1, 24)})
        return [replace(base, rank=rank) for base in bases for rank in ranks]

    @classmethod
    def choices(
        cls, shape: Shape, weight: Tensor | None = None, **options: Any
    ) -> Sequence[tuple[CodecSpec, float]]:
        """With the error of each: of the SVD, what singular values leave out; else measured."""
        specs = cls.menu(weight, **options)
        if weight is None:
            return []
        if specs[0].decomposition != "svd":
            return [*_measured(specs, weight)]
        missing: dict[int, Tensor] = {}
        for spec in specs:
            if spec.slices not in missing:
                missing[spec.slices] = spec._energy_left_out(weight)
        return [(spec, float(missing[spec.slices][spec.rank])) for spec in specs]

    def _energy_left_out(self, weight: Tensor) -> Tensor:
        """Share of the sorted matrix's energy beyond each rank, (longest rank + 1,)."""
        _, tensor = self._sorted(weight.detach().float())
        modes = self._modes((weight.shape[0], weight.shape[1]))
        energy = torch.linalg.svdvals(tensor.reshape(modes)).square()
        left_out = energy.flip(0).cumsum(0).flip(0) / energy.sum().clamp_min(1e-300)
        return torch.cat([left_out, torch.zeros(1)])

    def _order(self, shape: Shape, storage: Storage | None = None) -> Order:
        rows = -(-shape[0] // self.slices)
        return Order(self.scope, self.size, storage or self.storage, rows, shape[1])

    def _modes(self, shape: Shape) -> tuple[int, ...]:
        rows = -(-shape[0] // self.slices)
        return modes_of(self.decomposition, self.fold, self.slices, rows, shape[1])

    def _core_shapes(self, shape: Shape) -> list[tuple[int, ...]]:
        return DECOMPOSITIONS[self.decomposition].core_shapes(self._modes(shape), self.rank)

    def _gauged(self, shape: Shape) -> list[tuple[int, int]]:
        """(rows, rank) of every core whose bond is fixed."""
        if not self.is_gauged:
            return []
        shapes = self._core_shapes(shape)
        bonds = DECOMPOSITIONS[self.decomposition].bonds(len(self._modes(shape)))
        return [(math.prod(shapes[k][:-1]), shapes[k][-1]) for k, _, _ in bonds]

    def _sorted(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The stored order, and the values to decompose in that order, (slices, places) float64."""
        rows, columns = weight.shape
        padded = functional.pad(weight.cpu().double(), (0, 0, 0, -rows % self.slices))
        if self.sign_split:
            padded = padded.abs() ** self.power
        slices = padded.view(self.slices, -1, columns)
        order = self._order((rows, columns))
        # |x|^p is decomposed already: the score's own map would raise it to p again.
        shown = slices ** (1 / self.power) if self.sign_split else slices
        stored = order.choose(score(shown, self.map, self.power, self.reduction))
        return stored, slices.flatten(1)[:, order.read(stored)]

    def _pack_cores(self, cores: list[Tensor], n_modes: int) -> tuple[Tensor, Tensor]:
        cores, chosen_rows = list(cores), []
        bonds = DECOMPOSITIONS[self.decomposition].bonds(n_modes)
        for k, neighbour, axis in bonds if self.is_gauged else []:
            matrix = cores[k].reshape(-1, cores[k].shape[-1])
            chosen, rest, push = gauge.fix(matrix)
            cores[neighbour] = multiply(push, cores[neighbour], axis)
            cores[k] = rest
            chosen_rows.append(chosen)
        numbers = torch.cat([_float16(core).flatten() for core in cores])
        rows = torch.cat(chosen_rows) if chosen_rows else torch.zeros(0, dtype=torch.bool)
        return numbers, pack(rows, 1)

    def _unpack_cores(self, numbers: Tensor, rows: Tensor, shape: Shape) -> list[Tensor]:
        gauged = self._gauged(shape)
        chosen = unpack(rows, sum(m for m, _ in gauged), 1).bool().split([m for m, _ in gauged])
        bonds = DECOMPOSITIONS[self.decomposition].bonds(len(self._modes(shape)))
        if [int(c.sum()) for c in chosen] != [r for _, r in gauged]:
            raise CheckpointError("its gauge_rows do not mark as many rows as the rank of a bond.")
        of_core = {k: rows_of for (k, _, _), rows_of in zip(bonds, chosen, strict=False)}
        cores, start = [], 0
        for k, core in enumerate(self._core_shapes(shape)):
            identity = core[-1] ** 2 if k in of_core else 0
            stop = start + math.prod(core) - identity
            part = numbers[start:stop].double()
            if k in of_core:
                part = gauge.join(of_core[k], part.view(-1, core[-1]))
            cores.append(part.reshape(core))
            start = stop
        return cores


def _whitened_svd(matrix: Tensor, rank: int, moments: Tensor) -> list[Tensor]:
    """The factors of least output error: the SVD of W L, H = L L^T, with L^-1 in the right one.

    SVD-LLM (Wang et al. 2024, arXiv:2403.07378); the EinSort paper's appendix H with C = H. Only an
    unsorted SVD can take L^-1 into a factor; any other form would have to store it.
    """
    lower = cholesky(damped(moments.cpu(), matrix.shape[1], "inputs", DAMPING))
    left, right = DECOMPOSITIONS["svd"].fit(matrix @ lower, rank)
    whitened = torch.linalg.solve_triangular(lower, right[..., 0], upper=False, left=False)
    return [left, whitened[..., None]]


def _measured(specs: Sequence[Network], weight: Tensor) -> Iterator[tuple[Network, float]]:
    """Those whose cores fit float16, with their errors."""
    for spec in specs:
        with suppress(NumericsError):
            yield spec, spec.measured_distortion(weight)


def _float16(core: Tensor) -> Tensor:
    found = core.to(torch.float16)
    if not torch.isfinite(found).all():
        raise NumericsError("a core of its tensor network exceeds the range of float16.")
    if (found - core).norm() > CORE_ROUNDING * core.norm():
        raise NumericsError("a core of its tensor network is too small for float16.")
    return found


def _slices_tried(slices: int, scope: str) -> tuple[int, ...]:
    if slices:
        return (slices,)
    return (1,) if scope == "none" else MENU_SLICES  # unsorted, slices make no difference


def _column_scale(weight: Tensor, hessian: Hessian | None) -> Tensor:
    """(in_features,) float16: root mean square of each input, or ones (ASVD, arXiv:2312.05821)."""
    if hessian is None:
        return torch.ones(weight.shape[1], dtype=torch.float16)
    scale = hessian.inputs.diagonal().clamp_min(0).sqrt()
    return (scale / scale.mean()).clamp(2.0**-10, 2.0**10).to(torch.float16).cpu()
