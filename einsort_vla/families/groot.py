"""GR00T N1.7."""

import importlib
from contextlib import AbstractContextManager
from functools import partial
from typing import Any
from unittest import mock

from einsort_vla.families.family import LOOKUP, TABLES, UNUSED, Family

_NO_WEIGHTS = ["*.json", "*.txt", "*.model"]


def _offline() -> AbstractContextManager[Any]:
    """Fetch of the base model what describes it alone."""
    module = importlib.import_module("lerobot.policies.groot.groot_n1_7")
    described = partial(module.snapshot_download, allow_patterns=_NO_WEIGHTS)
    return mock.patch.object(module, "snapshot_download", described)


GROOT = Family(
    "groot", dense={**TABLES, "*pos_embed*": LOOKUP, "*lm_head*": UNUSED}, offline=_offline
)
