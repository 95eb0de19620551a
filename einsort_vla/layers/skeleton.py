"""Building a model without memory for its weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from torch import nn


@contextmanager
def without_weights() -> Iterator[None]:
    """While this is open, every new parameter is on the meta device; buffers are real.

    Allocation by `torch.empty` costs nothing until it is written, and initialization of a meta
    tensor does nothing: so a model of any size is built in little memory. Moves to a device, which
    some policies make while they are built, do nothing either.
    """
    register = nn.Module.register_parameter

    def register_meta(module: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if param is not None and not param.is_meta:
            param = nn.Parameter(param.detach().to("meta"), requires_grad=param.requires_grad)
        register(module, name, param)

    def stay(module: nn.Module, *_: Any, **__: Any) -> nn.Module:
        return module

    with (
        mock.patch.object(nn.Module, "register_parameter", register_meta),
        mock.patch.object(nn.Module, "to", stay),
    ):
        yield
