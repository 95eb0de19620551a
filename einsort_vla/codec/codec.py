"""What a user chooses: a form, and options of its menu, such as `curve window=16`."""

from dataclasses import dataclass, field
from importlib import import_module
from inspect import signature
from typing import Annotated, Any, ClassVar, get_args, get_origin, get_type_hints

from msgspec import Meta
from torch import Tensor

from einsort_vla.codec.dense import Dense
from einsort_vla.codec.spec import CodecSpec, Shape
from einsort_vla.errors import UsageError, unknown_name
from einsort_vla.names import DENSE, FORMS
from einsort_vla.reading import as_record

_Parameter: Any = bool | Annotated[int, Meta(ge=-(2**53), le=2**53)] | float | str


@dataclass(frozen=True)
class Codec:
    """A form and options of its menu; two are equal if they offer the same codes.

    Attributes:
        form: the class of its codes, `curve`.
        options: what differs from the form's defaults, in the order of its menu.
        named: the options that were set, to their defaults or not.
    """

    form: str
    options: tuple[tuple[str, Any], ...] = ()
    named: frozenset[str] = field(default=frozenset(), compare=False)

    @classmethod
    def parse(cls, text: str) -> "Codec":
        """The codec that a text names: `scalar group=128 grid=asymmetric`.

        Raises:
            UsageError: the form or an option is unknown, has no such value, or the form is `dense`.
        """
        form, *pairs = text.split() or [""]
        defaults = _defaults(form)
        values = {}
        for pair in pairs:
            name, _, value = pair.partition("=")
            if name not in defaults:
                valid = defaults or ["(it has none)"]
                raise unknown_name(f"option of --codec {form}", name, valid)
            values[name] = _value(pair, value, defaults[name])
        return cls._of(form, values)

    @classmethod
    def _of(cls, form: str, values: dict[str, Any]) -> "Codec":
        _form_class(form).menu(**values)  # refuses values that no code has
        options = tuple(
            (name, values[name])
            for name, default in _defaults(form).items()
            if name in values and values[name] != default
        )
        return cls(form, options, frozenset(values))

    def with_defaults(self, **defaults: Any) -> "Codec":
        """The same with other defaults for what was not set, of those options that the form has."""
        known = _defaults(self.form)
        values = {name: value for name, value in defaults.items() if name in known}
        own = {name: dict(self.options).get(name, known[name]) for name in self.named}
        return self._of(self.form, values | own)

    def menu(self) -> list[CodecSpec]:
        """The codes that fit any matrix, from few bits to many, with `dense` as the last."""
        return [*_form_class(self.form).menu(**dict(self.options)), Dense()]

    def choices(self, shape: Shape, weight: Tensor | None = None) -> list[tuple[CodecSpec, float]]:
        """What a plan may choose from for one matrix: codes with the error expected of each.

        Args:
            shape: (out_features, in_features).
            weight: the matrix itself; without it, codes that depend on it are left out.
        """
        own = _form_class(self.form).choices(shape, weight, **dict(self.options))
        return [*own, *((spec, 0.0) for spec in Dense.menu(weight))]

    def __str__(self) -> str:
        """The text that `parse` reads, one for equal codecs."""
        return " ".join([self.form, *(f"{name}={_text(value)}" for name, value in self.options)])


def spec_from_dict(data: Any, source: str = "the spec") -> CodecSpec:
    """The inverse of `CodecSpec.as_dict`, of data that anyone may have written.

    Raises:
        CheckpointError: it is no mapping, or a parameter is missing or of another type; errors call
            it `source`.
        UsageError: the form or a parameter is unknown, or such a code does not exist.
    """
    given = as_record(data, dict[str, Any], source)
    parameters = {n: as_record(own, _Parameter, f"{source}: {n}") for n, own in given.items()}
    form = parameters.pop("form", "")
    if form not in (forms := (DENSE, *FORMS)):
        raise unknown_name("codec form", str(form), forms)
    kind = _class(str(form))
    types = {n: t for n, t in get_type_hints(kind).items() if get_origin(t) is not ClassVar}
    if left := parameters.keys() - types.keys():
        raise unknown_name(f"parameter of {form}", min(left), types or ["(it has none)"])
    for name, value in parameters.items():
        options = get_args(types[name])
        if options and isinstance(value, str) and value not in options:
            raise unknown_name(f"{form} {name}", value, options)
    return as_record(parameters, kind, source)


def _form_class(form: str) -> type[CodecSpec]:
    """The class of a form that a user may choose."""
    if form not in FORMS:
        raise unknown_name("codec", form, FORMS)
    return _class(form)


def _class(form: str) -> type[CodecSpec]:
    return import_module(f"einsort_vla.codec.{form}").FORM


def _defaults(form: str) -> dict[str, Any]:
    """The options of a form's menu with their defaults, in its order."""
    parameters = signature(_form_class(form).menu).parameters
    return {name: own.default for name, own in parameters.items() if name != "weight"}


def _value(pair: str, text: str, default: Any) -> Any:
    kind = type(default)
    try:
        return {"true": True, "false": False}[text] if kind is bool else kind(text)
    except (KeyError, ValueError) as error:
        valid = "true or false" if kind is bool else _KINDS.get(kind, f"of type {kind.__name__}")
        raise UsageError(f"the codec option {pair!r} must be {valid}.") from error


_KINDS = {int: "a whole number", float: "a number", str: "a word"}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
