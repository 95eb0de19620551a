"""GR00T N1.7."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from einsort_vla.families.family import LOOKUP, TABLES, UNUSED, Family

_NO_WEIGHTS = ["*.json", "*.txt", "*.model"]


@contextmanager
def _offline() -> Iterator[None]:
    """Fetch of the base model what describes it alone."""
    module = importlib.import_module("lerobot.policies.groot.groot_n1_7")
    fetch = module.snapshot_download
    described = mock.patch.object(
        module, "snapshot_download", lambda *a, **kw: fetch(*a, **kw, allow_patterns=_NO_WEIGHTS)
    )
    with described:
        yield


GROOT = Family(
    "groot", dense={**TABLES, "*pos_embed*": LOOKUP, "*lm_head*": UNUSED}, offline=_offline
)
