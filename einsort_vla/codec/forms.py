"""The forms there are. A new one is a module with a `CodecSpec`, and a line here."""

from collections.abc import Mapping
from typing import Any

from einsort_vla.codec.dense import Dense
from einsort_vla.codec.leader import Leader
from einsort_vla.codec.local import Local
from einsort_vla.codec.lossless import Lossless
from einsort_vla.codec.network import Network
from einsort_vla.codec.scalar import Scalar
from einsort_vla.codec.spec import CodecSpec
from einsort_vla.errors import unknown_name

_CLASSES: tuple[type[CodecSpec], ...] = (Dense, Leader, Local, Lossless, Network, Scalar)
_BY_NAME = {cls.form: cls for cls in _CLASSES}
FORMS = tuple(name for name in _BY_NAME if name != Dense.form)
"""The forms a user may choose; `dense` is part of each one's menu."""


def form_class(form: str) -> type[CodecSpec]:
    """The class of a form that a user may choose.

    Raises:
        UsageError: there is no such form, or it is `dense`.
    """
    if form not in FORMS:
        raise unknown_name("codec", form, FORMS)
    return _BY_NAME[form]


def spec_from_dict(data: Mapping[str, Any]) -> CodecSpec:
    """The inverse of `CodecSpec.as_dict`.

    Raises:
        UsageError: the form is unknown or its parameters cannot exist.
        TypeError: a parameter is missing or left over.
    """
    parameters = dict(data)
    form = parameters.pop("form", "")
    if form not in _BY_NAME:
        raise unknown_name("codec form", form, _BY_NAME)
    return _BY_NAME[form](**parameters)
