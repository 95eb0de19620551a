"""The EinSort KV cache: keys and values of a decoder, coded while they are held.

`EinSortCache` needs Transformers, which is imported when the package is.
"""

from einsort_vla.errors import importing

with importing(
    "Transformers cannot be imported", "Install it with: pip install 'einsort-vla[transformers]'"
):
    import transformers as _transformers  # noqa: F401

from einsort_vla.cache.cache import CacheReport, EinSortCache

__all__ = ["CacheReport", "EinSortCache"]
