"""A coded matrix: its spec, shape and stored parts."""

from dataclasses import dataclass

from torch import Tensor

from einsort_vla.codec.spec import CodecSpec


@dataclass(frozen=True)
class CompressedTensor:
    """What is stored of one matrix.

    Attributes:
        spec: how the parts are to be read.
        shape: (out_features, in_features) of the decoded matrix.
        parts: name to tensor; which ones there are follows from the form.
    """

    spec: CodecSpec
    shape: tuple[int, int]
    parts: dict[str, Tensor]

    @property
    def stored_bits(self) -> int:
        """Bits of all parts as they lie in the file."""
        return sum(8 * part.numel() * part.element_size() for part in self.parts.values())
