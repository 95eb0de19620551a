"""The class of each form; a new one is a module here and its name in `einsort_vla.names`."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from einsort_vla.codec.spec import CodecSpec
from einsort_vla.errors import unknown_name
from einsort_vla.names import DENSE, FORMS


def form_class(form: str) -> type[CodecSpec]:
    """The class of a form that a user may choose.

    Raises:
        UsageError: there is no such form, or it is `dense`.
    """
    if form not in FORMS:
        raise unknown_name("codec", form, FORMS)
    return _class(form)


def spec_from_dict(data: Mapping[str, Any]) -> CodecSpec:
    """The inverse of `CodecSpec.as_dict`.

    Raises:
        UsageError: the form is unknown or its parameters cannot exist.
        TypeError: a parameter is missing or left over.
    """
    parameters = dict(data)
    form = parameters.pop("form", "")
    if form not in (forms := (DENSE, *FORMS)):
        raise unknown_name("codec form", form, forms)
    return _class(form)(**parameters)


def _class(form: str) -> type[CodecSpec]:
    return import_module(f"einsort_vla.codec.{form}").FORM
