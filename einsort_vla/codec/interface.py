"""encode, decode, n_bits and menu for every form."""

import math
from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from einsort_vla.codec.dense import Dense
from einsort_vla.codec.leader import Leader
from einsort_vla.codec.local import Local
from einsort_vla.codec.lossless import Lossless
from einsort_vla.codec.network import Network
from einsort_vla.codec.scalar import Scalar
from einsort_vla.codec.spec import CodecSpec, Shape
from einsort_vla.codec.tensor import CompressedTensor
from einsort_vla.errors import NumericsError, ShapeError, UsageError, unknown_name

FLOAT16_MAX = torch.finfo(torch.float16).max
_CLASSES: tuple[type[CodecSpec], ...] = (Dense, Leader, Local, Lossless, Network, Scalar)
_FORMS = {cls.form: cls for cls in _CLASSES}
FORMS = tuple(name for name in _FORMS if name != Dense.form)
"""The forms a user may choose; `dense` is part of each one's menu."""


def encode(weight: Tensor, spec: CodecSpec, hessian: Tensor | None = None) -> CompressedTensor:
    """Code one weight matrix.

    Args:
        weight: (out_features, in_features), any float dtype; not modified.
        spec: form and parameters.
        hessian: (in_features, in_features), X^T X of the layer's inputs; with it, the error of the
            outputs is made small rather than that of the weights. The stored bits are the same.

    Returns:
        Parts of `n_bits(spec, weight.shape)` bits, on the CPU.

    Raises:
        ShapeError: the weight is not a matrix, or is empty, or the Hessian does not fit it.
        NumericsError: it is of no float type, holds NaN or infinity, or values a float16 scale
            cannot hold; or the Hessian is not positive definite.
    """
    if weight.ndim != 2 or not weight.numel():
        raise ShapeError(f"a matrix is coded, but the weight has shape {tuple(weight.shape)}.")
    if not weight.is_floating_point():
        raise NumericsError(
            f"the weight is of type {weight.dtype}: it is quantized already. Give the original."
        )
    matrix = weight.detach().float()
    low, high = (float(bound) for bound in torch.aminmax(matrix))  # NaN where there is one
    if not (math.isfinite(low) and math.isfinite(high)):
        count = int((~torch.isfinite(matrix)).sum())
        raise NumericsError(f"the weight holds {count} NaN or infinite values; it cannot be coded.")
    if max(-low, high) > FLOAT16_MAX:
        raise NumericsError(
            f"the weight reaches {max(-low, high):.3g}, "
            f"beyond the float16 range of its scales ({FLOAT16_MAX:.0f})."
        )
    return CompressedTensor(spec, (weight.shape[0], weight.shape[1]), spec.encode(matrix, hessian))


def decode(compressed: CompressedTensor) -> Tensor:
    """The coded matrix, (out_features, in_features) float32, on the device of its parts."""
    device = next(iter(compressed.parts.values())).device
    return compressed.spec.decode(compressed.parts, compressed.shape).to(device).contiguous()


def n_bits(spec: CodecSpec, shape: Shape) -> int:
    """Exactly the bits that `encode` stores for a matrix of that shape."""
    return spec.n_bits(shape)


def check_codec(codec: str) -> str:
    """The text itself, if it names a form a user may choose and options which that form has.

    Args:
        codec: a form, and options of its menu: `scalar group=128 grid=asymmetric`.

    Raises:
        UsageError: the form or an option is unknown, or the form is `dense`.
    """
    _parse(codec)
    return codec


def menu(codec: str) -> list[CodecSpec]:
    """The codes of a form that fit any matrix, from few bits to many, with `dense` as the last.

    Raises:
        UsageError: see `check_codec`.
    """
    cls, options = _parse(codec)
    return [*cls.menu(**options), Dense()]


def choices(
    codec: str, shape: Shape, weight: Tensor | None = None
) -> list[tuple[CodecSpec, float]]:
    """What a plan may choose from for one matrix: codes with the error expected of each.

    Args:
        codec: the form to choose from, with options of its menu.
        shape: (out_features, in_features).
        weight: the matrix itself; without it, codes that depend on it are left out.

    Raises:
        UsageError: see `check_codec`.
    """
    cls, options = _parse(codec)
    return [*cls.choices(shape, weight, **options), (Dense(), 0.0)]


def _parse(codec: str) -> tuple[type[CodecSpec], dict[str, Any]]:
    """The class and the options of its menu that a text such as `leader window=10` names."""
    form, *pairs = codec.split() or [""]
    if form not in FORMS:
        raise unknown_name("codec", form, FORMS)
    cls = _FORMS[form]
    known = dict(signature(cls.menu).parameters)
    known.pop("weight")
    options = {}
    for pair in pairs:
        name, _, text = pair.partition("=")
        if name not in known:
            raise unknown_name(f"option of --codec {form}", name, known or ["(it has none)"])
        default = known[name].default
        # Without a default of its own a switch is set by the matrix.
        options[name] = _value(pair, text, bool if default is None else type(default))
    cls.menu(**options)  # refuses values that no code has
    return cls, options


def _value(pair: str, text: str, kind: type) -> Any:
    try:
        return {"true": True, "false": False}[text] if kind is bool else kind(text)
    except (KeyError, ValueError) as error:
        valid = "true or false" if kind is bool else f"of type {kind.__name__}"
        raise UsageError(f"the codec option {pair!r} must be {valid}.") from error


def spec_from_dict(data: Mapping[str, Any]) -> CodecSpec:
    """The inverse of `CodecSpec.as_dict`.

    Raises:
        UsageError: the form is unknown or its parameters cannot exist.
        TypeError: a parameter is missing or left over.
    """
    parameters = dict(data)
    form = parameters.pop("form", "")
    if form not in _FORMS:
        raise unknown_name("codec form", form, _FORMS)
    return _FORMS[form](**parameters)
