"""What backends there are, and what each one can do: the forms it computes on, and where.

A backend `x` is the module `einsort_vla.kernels.x`, whose `BACKEND` says all that is known of it,
and a line in `einsort_vla.names`.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol, get_args, get_type_hints

from torch import Tensor

from einsort_vla.codec import CompressedTensor
from einsort_vla.errors import UsageError, unknown_name
from einsort_vla.names import AUTO, BACKENDS

ANY_FORM = "any"
"""A key of `BackendSpec.makers`: for each form that has no entry of its own."""


class Backend(Protocol):
    """Multiplies activations by the transpose of one coded matrix, and adds a bias."""

    name: str
    """Of what really computes."""

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """(..., in_features) to (..., out_features), in the dtype and on the device of `x`.

        With equal weights the result has the bits of `nn.Linear`, whose bias goes into the product.
        """
        ...


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class BackendSpec:
    """All that is known of one backend."""

    name: str
    makers: Mapping[str, Callable[..., Backend]]
    """By the form's name: what makes a backend of a `CompressedTensor`, and of options if any."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where a policy must be for it."""
    why_unavailable: Callable[[], str | None] = _nothing
    """Says what stands against it on this machine, with the fix; None if nothing does."""
    options: type | None = None
    """A frozen dataclass; None for a backend without options."""
    is_automatic: bool = False
    """Whether `auto` may take it."""
    decoders: Mapping[str, Callable[[CompressedTensor], Tensor]] = field(default_factory=dict)
    """By the form's name: compiled code that decodes as `codec.decode` does, on its device."""

    def maker(self, form: str) -> Callable[..., Backend] | None:
        """What makes a backend for a form; None if there is no code for it."""
        return self.makers.get(form, self.makers.get(ANY_FORM))


def backend_spec(name: str) -> BackendSpec:
    """What is known of the backend of that name.

    Raises:
        UsageError: there is none.
    """
    if name == AUTO:
        return BackendSpec(AUTO, {})
    if name not in BACKENDS:
        raise unknown_name("backend", name, BACKENDS)
    return importlib.import_module(f"einsort_vla.kernels.{name}").BACKEND


def backend_specs() -> Iterator[BackendSpec]:
    """Of every backend, in the order in which `auto` prefers them."""
    return (backend_spec(name) for name in BACKENDS if name != AUTO)


@dataclass(frozen=True)
class BackendChoice:
    """A backend and its options: what `--backend` asks for. Made by `parse`; equal by value."""

    name: str
    options: Any = None

    @classmethod
    def parse(cls, text: str) -> "BackendChoice":
        """The choice that a text such as `cpu` or `cuda decode_from=33` names.

        Raises:
            UsageError: there is no such backend, or it has no such option or value.
        """
        name, *pairs = text.split() or [""]
        kind = backend_spec(name).options
        hints = get_type_hints(kind) if kind else {}
        values: dict[str, Any] = {}
        for pair in pairs:
            key, _, value = pair.partition("=")
            if key not in hints:
                raise unknown_name(f"option of --backend {name}", key, hints or ["(it has none)"])
            values[key] = _read(f"--backend {name}: {pair!r}", value, hints[key])
        return cls(name, kind(**values) if kind else None)

    @property
    def spec(self) -> BackendSpec:
        return backend_spec(self.name)

    def __str__(self) -> str:
        """The name and the options that differ from their defaults."""
        options = self.options
        told = [] if options is None else [
            f"{f.name}={getattr(options, f.name)}"
            for f in fields(options)
            if getattr(options, f.name) != f.default
        ]  # fmt: skip
        return " ".join([self.name, *told])


DECODED = BackendChoice("decoded")
"""What multiplies where nothing else is asked for, or has code."""


def _read(what: str, text: str, kind: Any) -> Any:
    """An int, or one of the values of a `Literal`."""
    if kind is int:
        try:
            return int(text)
        except ValueError as error:
            raise UsageError(f"{what} must be a whole number.") from error
    if text not in get_args(kind):
        raise UsageError(f"{what} must be one of {', '.join(get_args(kind))}.")
    return text
