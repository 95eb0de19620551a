"""What each matrix of a policy can be coded as: looked at once, whatever the number of rates."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Protocol

from torch import Tensor

from einsort_vla.codec import Codec, CodecSpec, Dense, Extent, Shape, checked
from einsort_vla.errors import EinSortError, UsageError


@dataclass(frozen=True)
class PlannedTensor:
    """The code of one matrix, with what it will cost."""

    spec: CodecSpec
    shape: Shape
    bits: int
    distortion: float  # predicted relative mean squared error
    reason: str = ""  # why it has more bits than others


@dataclass(frozen=True)
class Candidates:
    """For each compressible matrix what it can be coded as, in any order."""

    codec: Codec
    tensors: Mapping[str, Sequence[PlannedTensor]]


class DenseWeights(Protocol):
    """The matrices of a policy, one at a time; a `DenseFolder` is such."""

    @property
    def matrices(self) -> Mapping[str, Shape]:
        """Name to (out_features, in_features) of all compressible ones."""
        ...

    def get(self, name: str) -> Tensor:
        """One matrix."""
        ...

    def where(self, name: str) -> str:
        """File and name of a matrix, for errors."""
        ...


def candidates_of(
    dense: DenseWeights,
    codec: Codec,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Candidates:
    """What every matrix of a policy can be coded as, with the error expected of each code.

    Args:
        dense: its weights, each of which is read once.
        codec: which codes there are to choose from.
        include: patterns of tensor names that may be coded.
        exclude: patterns of those that stay dense all the same. What is left out stays in the
            count: the others are coded finer or coarser to meet a rate.
        on_progress: called with weights looked at and weights in all.

    Raises:
        UsageError: a pattern fits no matrix.
        NumericsError: a matrix holds NaN or infinity, or is quantized already.
    """
    shapes = dense.matrices
    coded = _matched(shapes, include) - _matched(shapes, exclude)
    found, done, total = {}, 0, sum(map(math.prod, shapes.values()))
    for name, shape in shapes.items():
        weight = dense.get(name)
        if name not in coded:
            found[name] = [planned(Dense.of(weight), shape, 0.0)]
        else:
            try:
                found[name] = options(shape, codec, weight)
            except EinSortError as error:
                raise type(error)(f"{dense.where(name)}: {error}") from error
        done += math.prod(shape)
        on_progress(done, total)
    return Candidates(codec, found)


def options(shape: Shape, codec: Codec, weight: Tensor | None = None) -> list[PlannedTensor]:
    """What one matrix can be coded as, with the error expected of each code.

    Args:
        shape: (out_features, in_features).
        codec: which codes there are to choose from.
        weight: the matrix itself; without it, codes whose size depends on it are left out.

    Raises:
        NumericsError: the weight holds NaN or infinity, or is quantized already.
    """
    if weight is None:
        return [planned(spec, shape, error) for spec, error in codec.choices(shape)]
    extent = Extent.of(checked(weight))
    found = codec.choices(shape, weight)
    reason = next(filter(None, (spec.lack(extent) for spec, _ in found)), "")
    fitting = [(spec, error) for spec, error in found if not spec.lack(extent)]
    return [replace(planned(spec, shape, error), reason=reason) for spec, error in fitting]


def planned(spec: CodecSpec, shape: Shape, distortion: float) -> PlannedTensor:
    """One matrix's code with its bits."""
    return PlannedTensor(spec, shape, spec.n_bits(shape), distortion)


def _matched(names: Collection[str], patterns: Sequence[str]) -> set[str]:
    found = set()
    for pattern in patterns:
        own = {name for name in names if fnmatchcase(name, pattern)}
        if not own:
            raise UsageError(
                f"the pattern {pattern!r} fits no compressible matrix; they are named like "
                f"{min(names)}."
            )
        found |= own
    return found
