"""The EinSort KV cache: keys and values of a decoder, coded while they are held.

`EinSortCache` needs Transformers, which is imported when the package is.
"""

from einsort_vla.errors import MissingDependency

try:
    import transformers as _transformers  # noqa: F401
except ImportError as error:
    raise MissingDependency(
        f"Transformers cannot be imported ({error}). Install it with: "
        "pip install 'einsort-vla[transformers]'"
    ) from error

from einsort_vla.cache.block import BlockCode, CodedStates
from einsort_vla.cache.cache import CacheReport, EinSortCache
from einsort_vla.cache.choice import FORMS, choose
from einsort_vla.cache.layer import EinSortLayer

__all__ = [
    "FORMS",
    "BlockCode",
    "CacheReport",
    "CodedStates",
    "EinSortCache",
    "EinSortLayer",
    "choose",
]
