"""How the keys or values of a block of tokens become a matrix, and the matrix its code.

A block is (heads, tokens, head_dim), of one sequence of a batch, so that beams and batches can be
reordered without decoding.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from einsort_vla.codec import (
    CodecSpec,
    CompressedTensor,
    Curve,
    Scalar,
    Shape,
    decode,
    encode,
)
from einsort_vla.codec.curve.scales import scales, stored
from einsort_vla.errors import NumericsError
from einsort_vla.kernels import decode_fast

Size = tuple[int, int, int]  # (heads, tokens, head_dim)
Axes = Literal["token", "channel", "joint"]
FINE = Scalar(8)
"""The code of first tokens and of channel means."""
SMALLEST = 2.0**-10  # of the largest state: what float16 scales lose is 1/512 of it at most
MAX_GAIN = 2.0  # a row whose decoded form hardly resembles it is not blown up


@dataclass(frozen=True)
class BlockCode:
    """The code of the keys, or of the values, of a block.

    Attributes:
        spec: the code of the matrix.
        axes: its rows and columns: `token`, (heads * tokens, head_dim); `channel`, (heads *
            head_dim, tokens), as KIVI quantizes keys (Liu et al. 2024, arXiv:2402.02750); `joint`,
            (tokens, heads * head_dim), where a scale serves all heads of a token.
        n_first: so many first tokens are coded apart, by `FINE`. Most of the attention goes to the
            first token of a sequence (Xiao et al. 2024, arXiv:2309.17453), and its keys are far
            larger than others.
        is_centred: whether each channel's mean over the tokens is stored, by `FINE`, and only what
            differs from it is coded; keys have large means.
    """

    spec: CodecSpec
    axes: Axes
    n_first: int = 0
    is_centred: bool = False

    def n_bits(self, size: Size) -> int:
        """Exactly the bits that `encode` stores for a block of that size."""
        return sum(self.bits_by_part(size).values())

    def bits_by_part(self, size: Size) -> dict[str, int]:
        """The same, by what they are for: `signs`, `indices`, `order`, `first_scale`, ..."""
        return {
            name: 8 * part.n_bytes
            for prefix, spec, shape in self._pieces(size)
            for name, part in _prefixed(prefix, spec.layout(shape)).items()
        }

    def shape(self, size: Size) -> Shape:
        """Of the matrix that `spec` codes."""
        heads, tokens, dim = size[0], size[1] - self.n_first, size[2]
        return {
            "token": (heads * tokens, dim),
            "channel": (heads * dim, tokens),
            "joint": (tokens, heads * dim),
        }[self.axes]

    def n_core_numbers(self, size: Size) -> int | None:
        """Numbers of a network's cores, which the EinSort paper counts; None without."""
        return self.spec.n_core_numbers(self.shape(size))

    def encode(self, states: Tensor) -> "CodedStates":
        """Code (heads, tokens, head_dim) of any float type.

        Rows far smaller than the rest may become zero: attention adds what is beside them.

        Raises:
            NumericsError: there is NaN or infinity in it, or all of it is too large or too small
                for float16 scales.
        """
        if 0 < states.abs().amax() < SMALLEST:
            raise NumericsError(f"all states are below {SMALLEST:.2g}, too small to be coded.")
        heads, tokens, dim = states.shape
        first, rest = states.float().split([self.n_first, tokens - self.n_first], dim=1)
        parts: dict[str, Tensor] = {}
        if self.n_first:
            parts |= _prefixed(
                "first_", encode(first.reshape(-1, dim), FINE, may_lose_rows=True).parts
            )
        if self.is_centred:
            means = encode(rest.mean(1), FINE, may_lose_rows=True)
            parts |= _prefixed("mean_", means.parts)
            rest = rest - decode(means)[:, None].to(rest)
        matrix = self._to_matrix(rest)
        coded = encode(matrix, self.spec, may_lose_rows=True)
        if isinstance(self.spec, Curve):
            coded.parts.update(_unbiased(coded, matrix))
        parts |= coded.parts
        parts = {name: part.to(states.device) for name, part in parts.items()}
        return CodedStates(self, (heads, tokens, dim), parts)

    def decode(self, parts: Mapping[str, Tensor], size: Size, out: Tensor) -> None:
        """Decode the first tokens into `out`, (heads, as many tokens, head_dim), of any type."""
        found = {
            prefix: decode_fast(CompressedTensor(spec, shape, _own(prefix, parts, spec, shape)))
            for prefix, spec, shape in self._pieces(size)
        }
        first, rest = out[:, : self.n_first], out[:, self.n_first :]
        if self.n_first:
            first.copy_(found["first_"].unflatten(0, (size[0], -1))[:, : first.shape[1]])
        states = self._to_states(found[""], size)[:, : rest.shape[1]]
        if self.is_centred:
            torch.add(states, found["mean_"][:, None], out=rest)
        else:
            rest.copy_(states)

    def _pieces(self, size: Size) -> Iterator[tuple[str, CodecSpec, Shape]]:
        """Prefix of the names, code and shape of each matrix that is stored."""
        yield "", self.spec, self.shape(size)
        if self.n_first:
            yield "first_", FINE, (size[0] * self.n_first, size[2])
        if self.is_centred:
            yield "mean_", FINE, (size[0], size[2])

    def _to_matrix(self, states: Tensor) -> Tensor:
        if self.axes == "channel":
            return states.transpose(1, 2).flatten(0, 1)
        return states.transpose(0, 1).flatten(1) if self.axes == "joint" else states.flatten(0, 1)

    def _to_states(self, matrix: Tensor, size: Size) -> Tensor:
        heads, dim = size[0], size[2]
        if self.axes == "channel":
            return matrix.unflatten(0, (heads, dim)).transpose(1, 2)
        if self.axes == "joint":
            return matrix.unflatten(1, (heads, dim)).transpose(0, 1)
        return matrix.unflatten(0, (heads, -1))


@dataclass(frozen=True)
class CodedStates:
    """What is stored of the keys, or the values, of one sequence's block."""

    code: BlockCode
    size: Size
    parts: dict[str, Tensor]

    def decode(self, out: Tensor) -> None:
        """Decode the first tokens into `out`, (heads, as many tokens, head_dim), of any type."""
        self.code.decode(self.parts, self.size, out)


def _unbiased(coded: CompressedTensor, matrix: Tensor) -> dict[str, Tensor]:
    """Parts with row scales with which decoded rows are, in projection, as long as the exact ones.

    Scales of least squares shrink a row by the share of its error. Attention averages what is
    decoded over tokens: independent errors cancel, a shrinkage common to all does not.
    """
    found = decode(coded).to(matrix)
    product = (found * matrix).sum(1).clamp_min(torch.finfo(torch.float32).tiny)
    gain = (matrix.square().sum(1) / product).clamp(1, MAX_GAIN).cpu()
    unit = coded.parts["unit"]
    return stored(scales(coded.parts["scale"], unit) * gain, unit * gain.median())


def _prefixed[T](prefix: str, parts: Mapping[str, T]) -> dict[str, T]:
    return {prefix + name: part for name, part in parts.items()}


def _own(prefix: str, parts: Mapping[str, Tensor], spec: CodecSpec, shape: Shape) -> dict:
    return {name: parts[prefix + name] for name in spec.layout(shape)}
