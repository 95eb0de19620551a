"""The prefix of a flow-matching policy, pictures and words, held in a compressed cache.

SmolVLA, pi0 and pi0.5 read the prefix once and look at its keys and values in every denoising step.
Compressed after that reading, they take less memory for as long as the actions are sampled.
"""

import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest import mock

from einsort_vla.codec import CodecSpec
from einsort_vla.errors import UsageError
from einsort_vla.families import prefix_of
from einsort_vla.lerobot.policy import LoadedPolicy
from einsort_vla.names import DEFAULT_FORM

if TYPE_CHECKING:
    from einsort_vla.cache import CacheReport, EinSortCache


@dataclass
class PrefixWatch:
    """What became of the prefixes inside `compressed_prefix`."""

    n_prefixes: int = 0
    cache: "EinSortCache | None" = None  # of the last prefix

    @property
    def report(self) -> "CacheReport":
        """Bits and bytes of the last prefix.

        Raises:
            UsageError: the policy has not acted yet.
        """
        if self.cache is None:
            raise UsageError("no prefix has been compressed yet: let the policy act first.")
        return self.cache.report()


@contextmanager
def compressed_prefix(
    policy: Any, codec: str | CodecSpec = DEFAULT_FORM, rate: float = 0.75
) -> Iterator[PrefixWatch]:
    """Within, the policy samples its actions from a compressed prefix.

    Args:
        policy: a `LoadedPolicy` or LeRobot's own module, dense or compressed.
        codec: see `EinSortCache`; likewise `rate`.

    Raises:
        UsageError: the policy has no prefix that is kept, or the cache cannot be such.
    """
    from einsort_vla.cache import EinSortCache

    module = policy.module if isinstance(policy, LoadedPolicy) else policy
    prefix = prefix_of(module.config.type)
    if not getattr(module.config, "use_cache", True):
        raise UsageError("the policy's config.json says use_cache: false; there is no prefix kept.")
    EinSortCache(codec, rate)  # refuses what cannot be, before anything is changed
    reader, watch = getattr(module.model, prefix.reader), PrefixWatch()
    read = reader.forward

    def forward(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        outputs, exact = read(*args, **kwargs)
        is_prefix = kwargs.get("past_key_values") is None and exact is not None
        if not is_prefix:
            return outputs, exact
        watch.n_prefixes += 1
        watch.cache = _compressed(exact, EinSortCache(codec, rate))
        return outputs, watch.cache

    with mock.patch.object(reader, "forward", forward), _shared_copies(prefix.copier):
        yield watch


def _compressed(exact: Any, cache: "EinSortCache") -> "EinSortCache":
    """All layers of a cache moved to another, each let go of once it is."""
    for k, layer in enumerate(exact.layers):
        cache.update(layer.keys, layer.values, k)
        layer.keys = layer.values = None
    return cache


def _shared_copies(module_name: str | None) -> AbstractContextManager[Any]:
    """Let pi0 share the coded prefix among denoising steps; its own copy would decode all of it."""
    if module_name is None:
        return nullcontext()
    from einsort_vla.cache import EinSortCache

    module = importlib.import_module(module_name)
    copy: Callable[[Any], Any] = module.clone_past_key_values

    def share(cache: Any) -> Any:
        return cache.share(is_exact=True) if isinstance(cache, EinSortCache) else copy(cache)

    return mock.patch.object(module, "clone_past_key_values", share)
