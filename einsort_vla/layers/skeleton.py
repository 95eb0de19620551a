"""Building a model without memory for its weights, and within a budget."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from einsort_vla.errors import CheckpointError

SPARE = 8
"""A model is built of at most this multiple of what its file holds: some policies build the whole
base model, and then cut off what they do not need."""

_FACTORIES = frozenset(
    getattr(torch, name)
    for name in (
        "arange", "empty", "empty_strided", "eye", "full", "linspace", "logspace", "ones", "rand",
        "randint", "randn", "randperm", "tril_indices", "triu_indices", "zeros",
    )
)  # fmt: skip


@dataclass(frozen=True)
class Budget:
    """What a model may be built of.

    Attributes:
        elements: of all tensors that are made on the way.
        modules: of any kind.
    """

    elements: int
    modules: int

    @classmethod
    def for_file(cls, n_elements: int, n_tensors: int) -> "Budget":
        """For a model whose weight files hold so much; small ones get more than the multiple."""
        return cls(SPARE * n_elements + 2**26, SPARE * n_tensors + 2**14)


@contextmanager
def without_weights(budget: Budget | None = None) -> Iterator[None]:
    """While this is open, every new parameter is on the meta device; buffers are real.

    Allocation by `torch.empty` costs nothing until it is written, and initialization of a meta
    tensor does nothing: so a model of any size is built in little memory. Moves to a device, which
    some policies make while they are built, do nothing either.

    Args:
        budget: None sets no limit.

    Raises:
        CheckpointError: the model grows beyond its budget.
    """
    register = nn.Module.register_parameter

    def register_meta(module: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if param is not None and not param.is_meta:
            param = nn.Parameter(param.detach().to("meta"), requires_grad=param.requires_grad)
        register(module, name, param)

    def stay(module: nn.Module, *_: Any, **__: Any) -> nn.Module:
        return module

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(nn.Module, "register_parameter", register_meta))
        stack.enter_context(mock.patch.object(nn.Module, "to", stay))
        if budget is not None:
            stack.enter_context(_counted_modules(budget.modules))
            stack.enter_context(_CountedElements(budget.elements))
        yield


class _CountedElements(TorchFunctionMode):
    """Refuses a new tensor that goes beyond what is left, before it has memory."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = self._left = limit

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _FACTORIES and "out" not in kwargs:
            self._left -= func(*args, **{**_plain(kwargs), "device": "meta"}).numel()
            if self._left < 0:
                raise CheckpointError(
                    f"config.json asks for more than {self._limit} weights; the files explain "
                    "less. The config is damaged, or belongs to other weights."
                )
        return func(*args, **kwargs)


def _plain(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in kwargs.items() if key not in ("generator", "pin_memory")}


@contextmanager
def _counted_modules(limit: int) -> Iterator[None]:
    initialize: Callable[..., None] = nn.Module.__init__
    n_made = 0

    def count(module: nn.Module, *args: Any, **kwargs: Any) -> None:
        nonlocal n_made
        n_made += 1
        if n_made > limit:
            raise CheckpointError(
                f"config.json asks for more than {limit} modules; the files explain less. "
                "The config is damaged, or belongs to other weights."
            )
        initialize(module, *args, **kwargs)

    with mock.patch.object(nn.Module, "__init__", count):
        yield
