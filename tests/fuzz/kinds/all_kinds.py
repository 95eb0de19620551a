"""Where each kind is; the modules of those that are not asked for are not imported."""

import importlib
from collections.abc import Sequence

from tests.fuzz.kinds.kind import Kind

MODULES = {
    "folders": ("compressed", "dense", "patch", "difference"),
    "inputs": ("plan", "statistics", "observations", "protocol", "questions"),
    "evaluations": ("runs", "pages", "shards", "answers"),
    "models": ("policy", "model"),
    "bundles": ("bundle",),
}
NAMES = tuple(name for names in MODULES.values() for name in names)


def load_kinds(chosen: Sequence[str] = NAMES) -> list[Kind]:
    """The kinds of these names."""
    found: dict[str, Kind] = {}
    for module, names in MODULES.items():
        if not set(names).isdisjoint(chosen):
            loaded = importlib.import_module(f"tests.fuzz.kinds.{module}")
            found |= {kind.name: kind for kind in loaded.KINDS}
    return [found[name] for name in chosen]
