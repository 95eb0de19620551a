"""The `scalar` form: round-to-nearest in groups of a row. The yardstick, not a product."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import ClassVar, Literal, cast, get_args

import torch
from torch import Tensor

from einsort_vla.codec.feedback import code_columns
from einsort_vla.codec.hessian import Hessian
from einsort_vla.codec.packing import CHUNK, pack, smallest_int, unpack
from einsort_vla.codec.spec import FLOAT16_MAX, CodecSpec, Extent, Shape, StoredPart, stream
from einsort_vla.errors import CheckpointError, UsageError, unknown_name

Grid = Literal["symmetric", "asymmetric", "nf4"]
BITS = range(2, 16)
MAX_GROUP = 2**31 - 1
CLIPS = tuple(k / 32 for k in range(32, 12, -1))  # factors of a group's range that are tried


@dataclass(frozen=True)
class Scalar(CodecSpec):
    """Round-to-nearest with `bits` a weight; one float16 scale for `group` inputs of a row.

    `group` 0 is the whole row. Grids: `symmetric`, 2^bits - 1 levels about 0; `asymmetric`, 2^bits
    levels and a zero point of `bits` bits a group; `nf4`, the 16 levels of NormalFloat (Dettmers et
    al. 2023, arXiv:2305.14314). `clip` searches the range of each group for least squared error.

    Raises:
        UsageError: such a code does not exist.
    """

    bits: int
    group: int = 0
    grid: Grid = "symmetric"
    clip: bool = False
    form: ClassVar[str] = "scalar"

    def __post_init__(self) -> None:
        if self.grid not in get_args(Grid):
            raise unknown_name("scalar grid", self.grid, get_args(Grid))
        if self.bits not in BITS or (self.grid == "nf4" and self.bits != 4):
            raise UsageError(f"scalar takes 2 to 15 bits, nf4 takes 4; {self.bits} was asked for.")
        if self.group == 1 or not 0 <= self.group <= MAX_GROUP:
            raise UsageError(
                f"a scalar group has 2 or more inputs, at most {MAX_GROUP}, or 0 for all; "
                f"not {self.group}."
            )

    def layout(self, shape: Shape) -> dict[str, StoredPart]:
        rows, columns = shape
        groups = rows * self._n_groups(columns)
        layout = {
            "indices": stream(rows * columns * self.bits),
            "scale": StoredPart(torch.float16, (groups,)),
        }
        if self.grid == "asymmetric":
            layout["zero"] = stream(groups * self.bits)
        return layout

    def predicted_distortion(self, in_features: int) -> float:
        return _gaussian_error(self, min(self.group or in_features, in_features))

    def lack(self, extent: Extent) -> str:
        if self.grid == "asymmetric" and extent.span > FLOAT16_MAX:
            return (
                f"the highest and the lowest weight of a row are {extent.span:.3g} apart, beyond "
                f"the float16 range of an asymmetric scale ({FLOAT16_MAX:.0f})"
            )
        return super().lack(extent)

    def levels(self) -> Tensor:
        """Ascending levels in [-1, 1] of a grid without zero points, float32."""
        if self.grid == "nf4":
            return _nf4_levels()
        limit = 2 ** (self.bits - 1) - 1
        return torch.arange(-limit, limit + 1) / limit

    def encode(self, weight: Tensor, hessian: Hessian | None = None) -> dict[str, Tensor]:
        columns = weight.t().contiguous()
        coder = _Coder(self, columns)
        code_columns(columns, coder, hessian)
        return coder.parts()

    def decode(self, parts: Mapping[str, Tensor], shape: Shape) -> Tensor:
        rows, columns = shape
        n_groups = self._n_groups(columns)
        scale = parts["scale"].float().view(rows, n_groups)
        grid = _levels(self, scale.device)

        def spread(of_groups: Tensor) -> Tensor:
            if n_groups == 1:
                return of_groups
            return of_groups[:, torch.arange(columns, device=scale.device) // self.group]

        weight = torch.empty(rows, columns, device=scale.device)
        step = max(1, CHUNK // columns)
        for first in range(0, rows, step):
            n = min(step, rows - first)
            indices = unpack(parts["indices"], n * columns, self.bits, first * columns)
            levels, own = indices.view(n, columns), spread(scale[first : first + n])
            if self.grid == "asymmetric":
                zero = unpack(parts["zero"], n * n_groups, self.bits, first * n_groups)
                levels = levels - spread(zero.view(n, n_groups))
                weight[first : first + n] = levels * (own / (2**self.bits - 1))
            else:
                # No index leads out of the grid, whoever wrote it.
                weight[first : first + n] = grid[levels.clamp(max=len(grid) - 1)] * own
        return weight

    def check(self, parts: Mapping[str, Tensor], shape: Shape) -> None:
        if self.grid != "symmetric":
            return  # each index is a level
        n, top = shape[0] * shape[1], 2**self.bits - 1
        for first in range(0, n, CHUNK):
            own = unpack(parts["indices"], min(CHUNK, n - first), self.bits, first)
            if int(own.max()) >= top:
                raise CheckpointError(f"an index is {int(own.max())}; there are {top} levels.")

    @classmethod
    def menu(
        cls,
        weight: Tensor | None = None,
        group: int = 0,
        grid: str = "symmetric",
        clip: bool = False,
    ) -> Sequence["Scalar"]:
        return [
            cls(bits, group, cast(Grid, grid), clip) for bits in ([4] if grid == "nf4" else BITS)
        ]

    def _n_groups(self, columns: int) -> int:
        return -(-columns // (self.group or columns))


FORM = Scalar


class _Coder:
    """Codes a matrix group by group; see `feedback.ColumnCoder`."""

    def __init__(self, spec: Scalar, columns: Tensor) -> None:
        self._spec = spec
        self.group = spec.group or len(columns)
        self._top = 2**spec.bits - 1
        self._levels = spec.levels().to(columns.device)
        self._indices = torch.empty(columns.shape[::-1], dtype=smallest_int(spec.bits))
        self._n_coded = 0
        self._scales: list[Tensor] = []
        self._zeros: list[Tensor] = []

    def prepare(self, columns: Tensor) -> None:
        choices = [self._parameters(columns, c) for c in (CLIPS if self._spec.clip else (1.0,))]
        scale, zero = choices[0]
        if len(choices) > 1:
            errors = [(self._values(columns, *c) - columns).square().sum(0) for c in choices]
            best = torch.stack(errors).argmin(0, keepdim=True)
            scale = torch.stack([c[0] for c in choices]).gather(0, best)[0]
            zero = torch.stack([c[1] for c in choices]).gather(0, best)[0]
        self._scales.append(scale)
        self._zeros.append(zero)

    def code(self, columns: Tensor) -> Tensor:
        scale, zero = self._scales[-1], self._zeros[-1]
        indices = self._nearest(columns, scale, zero)
        self._indices[:, self._n_coded : self._n_coded + len(columns)] = indices.t()
        self._n_coded += len(columns)
        return self._decoded(indices, scale, zero)

    def parts(self) -> dict[str, Tensor]:
        spec = self._spec
        found = {
            "indices": pack(self._indices, spec.bits),
            "scale": torch.stack(self._scales, dim=1).flatten().cpu(),
        }
        if spec.grid == "asymmetric":
            found["zero"] = pack(torch.stack(self._zeros, dim=1), spec.bits)
        return found

    def _parameters(self, columns: Tensor, clip: float) -> tuple[Tensor, Tensor]:
        """(out_features,) float16 scale and int64 zero point of one group."""
        if self._spec.grid != "asymmetric":
            # The largest magnitude is stored, not the step: fine steps would be subnormal.
            scale = _float16(clip * columns.abs().amax(0))
            return scale, torch.zeros_like(scale, dtype=torch.int64)
        low, high = clip * columns.amin(0).clamp(max=0), clip * columns.amax(0).clamp(min=0)
        scale = _float16(high - low)
        zero = (-low / _positive(scale) * self._top).round().clamp(0, self._top)
        return scale, zero.to(torch.int64)

    def _nearest(self, columns: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        units = columns / _positive(scale)
        if self._spec.grid != "asymmetric":
            return _nearest(units, self._levels)
        levels = (units * self._top).round() + zero
        return levels.clamp(0, self._top).to(torch.int64)

    def _decoded(self, indices: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        if self._spec.grid == "asymmetric":
            return (indices - zero) * (scale.float() / self._top)
        return self._levels[indices] * scale.float()

    def _values(self, columns: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        return self._decoded(self._nearest(columns, scale, zero), scale, zero)


@lru_cache(maxsize=64)
def _levels(spec: Scalar, device: torch.device) -> Tensor:
    return spec.levels().to(device)


def _float16(scale: Tensor) -> Tensor:
    """Finite, although error feedback may take a column beyond the range of the weights."""
    return scale.clamp(max=FLOAT16_MAX).to(torch.float16)


def _positive(scale: Tensor) -> Tensor:
    return torch.where(scale > 0, scale.float(), 1.0)


def _nearest(values: Tensor, levels: Tensor) -> Tensor:
    return torch.bucketize(values.contiguous(), (levels[1:] + levels[:-1]) / 2)


@cache  # a plan asks for each of its matrices, and most have groups of one size
def _gaussian_error(spec: Scalar, n: int) -> float:
    """Relative mean squared error on i.i.d. Gaussian groups of n."""
    largest = _expected_largest(n, spec.grid)
    source = _normal_quantiles().clamp(-largest, largest)
    if spec.grid == "asymmetric":
        top = 2**spec.bits - 1
        levels = (torch.arange(top + 1) - top // 2) / (top / 2)
    else:
        levels = spec.levels()
    tried = [levels * largest * clip for clip in (CLIPS if spec.clip else (1.0,))]
    return min(float((t[_nearest(source, t)] - source).square().mean()) for t in tried)


def _expected_largest(n: int, grid: Grid) -> float:
    """Of n normal values (of their magnitudes, for a symmetric grid), by the Gumbel limit."""
    share = 0.570 ** (1 / n)  # exp(-exp(-0.577)): where the mean of a Gumbel variable lies
    quantile = 2 * share - 1 if grid == "asymmetric" else share
    return math.sqrt(2) * torch.erfinv(torch.tensor(max(quantile, 0.1))).item()


@cache
def _normal_quantiles() -> Tensor:
    steps = (torch.arange(16384, dtype=torch.float64) + 0.5) / 16384
    return (math.sqrt(2) * torch.erfinv(2 * steps - 1)).float()


@cache
def _nf4_levels() -> Tensor:
    """Quantiles of a normal, 8 above zero and 7 below, and zero, scaled to [-1, 1]."""
    offset = 0.9677083  # bitsandbytes' mean of (1 - 1/32) and (1 - 1/30)
    above = torch.linspace(offset, 0.5, 9)[:-1]
    below = torch.linspace(offset, 0.5, 8)[:-1]
    quantile = torch.distributions.Normal(0.0, 1.0).icdf
    levels = torch.cat([quantile(above), torch.zeros(1), -quantile(below)]).sort().values
    return levels / levels.max()
