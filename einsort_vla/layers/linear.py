"""A linear layer whose weight stays coded."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from einsort_vla.codec import CodecSpec, CompressedTensor, Shape
from einsort_vla.kernels import (
    DECODED,
    Backend,
    BackendChoice,
    Fallback,
    decode_fast,
    make_backend,
    resolve,
)


class CompressedLinear(nn.Module):
    """Stands in for `nn.Linear`; coded parts are buffers named `weight_<part>`.

    A change of type changes what it computes in, not the coded parts.

    Args:
        compressed: the coded weight.
        bias: (out_features,) or None.
        backend: how it is multiplied.
        dtype: what `weight` says its type is; activations are cast to it by some policies.
    """

    def __init__(
        self,
        compressed: CompressedTensor,
        bias: Tensor | None,
        backend: BackendChoice = DECODED,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.out_features, self.in_features = compressed.shape
        self.spec = compressed.spec
        for part, tensor in compressed.parts.items():
            self.register_buffer(f"weight_{part}", tensor)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self._like: Tensor
        like = torch.full((1,), torch.nan, dtype=dtype, device="cpu")
        self.register_buffer("_like", like, persistent=False)
        self._choice = backend
        self._backend: Backend | None = None
        if not any(tensor.is_meta for tensor in compressed.parts.values()):
            self._backend = make_backend(backend, compressed)
        self.register_load_state_dict_post_hook(_forget_backend)

    @classmethod
    def empty(
        cls,
        spec: CodecSpec,
        shape: Shape,
        bias: Tensor | None,
        backend: BackendChoice = DECODED,
        dtype: torch.dtype = torch.float32,
    ) -> "CompressedLinear":
        """A layer whose parts are on the meta device, to be loaded."""
        parts = {
            name: torch.empty(part.shape, dtype=part.dtype, device="meta")
            for name, part in spec.layout(shape).items()
        }
        return cls(CompressedTensor(spec, shape, parts), bias, backend, dtype)

    @property
    def compressed(self) -> CompressedTensor:
        """The coded weight, as the buffers hold it now."""
        shape = (self.out_features, self.in_features)
        parts = {part: self.get_buffer(f"weight_{part}") for part in self.spec.layout(shape)}
        return CompressedTensor(self.spec, shape, parts)

    @property
    def weight(self) -> Tensor:
        """Shape, dtype and device of the weight for callers that ask; its values are NaN."""
        weight = self._like.expand(self.out_features, self.in_features)
        setattr(weight, "_is_hf_initialized", True)  # noqa: B010  Transformers draws others anew
        return weight

    @property
    def backend(self) -> Backend:
        """How it is multiplied where it is now; made when it is first asked for.

        Raises:
            MissingDependency: the backend that was named cannot run here.
        """
        if self._backend is None:
            self._backend = make_backend(self._choice, self.compressed)
        return self._backend

    @property
    def fallback(self) -> Fallback | None:
        """Why another backend computes than the one that was asked for; None if it does.

        Raises:
            MissingDependency: the backend that was named cannot run here.
        """
        return resolve(self._choice, self.compressed)[1]

    def decoded(self, dtype: torch.dtype | None = None) -> nn.Linear:
        """The layer that it stands in for, in a type; by default in the one it computes in."""
        weight = decode_fast(self.compressed).to(self.weight.device, dtype or self.weight.dtype)
        has_bias = self.bias is not None
        linear = nn.Linear(self.in_features, self.out_features, has_bias, device="meta")
        linear.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
        if self.bias is not None:
            linear.bias = nn.Parameter(self.bias.detach().to(weight.dtype), requires_grad=False)
        return linear

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features)."""
        return self.backend.linear(x, self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {self.spec}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "CompressedLinear":
        parts = {name: buffer for name, buffer in self._buffers.items() if name != "_like"}
        super()._apply(fn, recurse)
        for name, before in parts.items():
            after = self._buffers[name]
            assert before is not None
            assert after is not None
            if after.dtype != before.dtype:
                self._buffers[name] = before.to(after.device)
            if after.device != before.device:
                self._backend = None
        return self


def _forget_backend(layer: Any, _: Any) -> None:
    layer._backend = None


def count_backends(model: nn.Module) -> dict[str, int]:
    """How many coded layers of a model each backend multiplies, by what really computes."""
    return dict(Counter(layer.backend.name for layer in _coded(model)))


def count_fallbacks(model: nn.Module) -> dict[Fallback, int]:
    """How many coded layers of a model another backend multiplies than was asked for, and why."""
    return dict(Counter(layer.fallback for layer in _coded(model) if layer.fallback))


def _coded(model: nn.Module) -> list[CompressedLinear]:
    return [layer for layer in model.modules() if isinstance(layer, CompressedLinear)]
