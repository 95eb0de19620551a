"""What a code is: a spec names a form and its parameters, and knows its bits and its error."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from einsort_vla.codec.hessian import Hessian
from einsort_vla.errors import ShapeError

DENSE_BITS = 16  # bfloat16
FLOAT16_MAX = torch.finfo(torch.float16).max
# A float16 below its normal range has steps of 2^-24: at this size a scale is off by 1.6 % at most.
SMALLEST_SCALE = 2.0**-19

# A code may pad its matrix to this many times its weights, or to this many numbers: then decoding
# takes memory that the weights explain.
PADDING, LEAST_PADDED = 4, 2**22

Shape = tuple[int, int]  # (out_features, in_features)


class StoredPart(NamedTuple):
    """Type and shape of one tensor that is stored of a matrix."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape)


@dataclass(frozen=True)
class Extent:
    """How large the numbers of a finite matrix are.

    Attributes:
        largest: the largest magnitude.
        span: the most that the highest and the lowest number of a row are apart, zero included.
        smallest: the least root mean square of a row, rows of zeros apart; infinite without others.
        largest_row: the largest.
    """

    largest: float
    span: float
    smallest: float
    largest_row: float

    @classmethod
    def of(cls, matrix: Tensor) -> "Extent":
        """Of (out_features, in_features) float32."""
        low, high = matrix.amin(1).clamp(max=0), matrix.amax(1).clamp(min=0)
        own = matrix[high > low]
        rms = torch.linalg.vector_norm(own, dim=1) / math.sqrt(matrix.shape[1])
        smallest, largest_row = (
            (float(f()) for f in (rms.min, rms.max)) if len(own) else (math.inf, 0)
        )
        largest = max(float(high.max()), -float(low.min()))
        return cls(largest, float((high.double() - low.double()).max()), smallest, largest_row)


def stream(n_bits: int) -> StoredPart:
    """A packed stream of that many bits, padded to a whole byte."""
    return StoredPart(torch.uint8, (-(-n_bits // 8),))


def most_padded(shape: Shape) -> int:
    """Numbers that a matrix of that shape may be padded to."""
    return max(PADDING * math.prod(shape), LEAST_PADDED)


def check_padding(shape: Shape, padded: int, cause: str) -> None:
    """Refuse a code that would be decoded to far more numbers than the matrix has.

    Raises:
        ShapeError: `padded` numbers are more than `most_padded`.
    """
    if padded > most_padded(shape):
        raise ShapeError(f"{cause} would pad a matrix of shape {shape} to {padded} numbers.")


@dataclass(frozen=True)
class CodecSpec(ABC):
    """The code of one matrix. Each form is a subclass; its fields are the form's parameters."""

    form: ClassVar[str]

    @abstractmethod
    def layout(self, shape: Shape) -> dict[str, StoredPart]:
        """What is stored of a matrix of that shape, by name, in the order of the file."""

    def n_bits(self, shape: Shape) -> int:
        """Exactly the bits stored for a matrix of that shape, padding included."""
        return sum(8 * part.n_bytes for part in self.layout(shape).values())

    @abstractmethod
    def predicted_distortion(self, in_features: int) -> float:
        """Relative mean squared error on a row of i.i.d. Gaussian weights of that length."""

    def lack(self, extent: Extent) -> str:
        """Why float16 cannot hold the scales of such a matrix; empty if it can."""
        if extent.largest > FLOAT16_MAX:
            return (
                f"the weight reaches {extent.largest:.3g}, beyond the float16 range of its scales "
                f"({FLOAT16_MAX:.0f})"
            )
        if extent.smallest < SMALLEST_SCALE:
            return (
                f"a row of the weight has a root mean square of {extent.smallest:.2g}, too small "
                f"for float16 scales ({SMALLEST_SCALE:.2g}): it would become zero or coarse"
            )
        return ""

    def measured_distortion(self, weight: Tensor) -> float:
        """Relative mean squared error of a matrix once coded."""
        dense = weight.detach().float()
        missing = dense - self.decode(self.encode(dense), (dense.shape[0], dense.shape[1]))
        lost, whole = (torch.linalg.vector_norm(m, dtype=torch.float64) for m in (missing, dense))
        return float(lost / whole.clamp_min(torch.finfo(torch.float64).tiny)) ** 2

    @abstractmethod
    def encode(self, weight: Tensor, hessian: Hessian | None = None) -> dict[str, Tensor]:
        """Parts of a finite float32 matrix, (out_features, in_features); see `codec.encode`."""

    @abstractmethod
    def decode(self, parts: Mapping[str, Tensor], shape: Shape) -> Tensor:
        """(out_features, in_features) float32; the inverse of `encode` up to the code's error."""

    def check(self, parts: Mapping[str, Tensor], shape: Shape) -> None:  # noqa: B027
        """Refuse parts of the right types and shapes whose content no encoder writes.

        Raises:
            CheckpointError: an index is out of range, or a stream cannot be decoded.
        """

    @classmethod
    @abstractmethod
    def menu(cls, weight: Tensor | None = None) -> "Sequence[CodecSpec]":
        """The codes a plan may choose from for a matrix, from few bits to many.

        Some can only be offered when the weight itself is there. Further parameters, each with a
        default, are what a user may fix: `--codec "scalar group=128"`; see `Codec`.
        """

    @classmethod
    def choices(
        cls, shape: Shape, weight: Tensor | None = None, **options: Any
    ) -> "Sequence[tuple[CodecSpec, float]]":
        """`menu` with the relative mean squared error expected of each code."""
        specs = cls.menu(weight, **options)
        return [(spec, spec.predicted_distortion(shape[1])) for spec in specs]

    def constants(self) -> bytes:
        """What decoding needs beside the stored parts, as bytes; a file has its fingerprint."""
        return b""

    def n_core_numbers(self, shape: Shape) -> int | None:
        """Numbers of a tensor network's cores, which the EinSort paper counts; None without."""
        return None

    def order_bits(self, shape: Shape) -> dict[str, int]:
        """Bits of a network's stored orders, by each way to store them; empty without."""
        return {}

    def as_dict(self) -> dict[str, Any]:
        return {"form": self.form, **asdict(self)}

    def __str__(self) -> str:
        """The form and what differs from its defaults, such as `curve bits=2.5`."""
        told = [f for f in fields(self) if getattr(self, f.name) != f.default]
        return " ".join([self.form, *(f"{f.name}={getattr(self, f.name)}" for f in told)])
