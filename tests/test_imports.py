"""The packages import each other one way only, imports inside functions included."""

from graphlib import TopologicalSorter

import pytest

grimp = pytest.importorskip("grimp")  # of import-linter

PACKAGES = (
    "einsort_vla", "envs", "policies", "eval", "lerobot_policy_einsort",
    "lerobot_env_einsort_libero",
)  # fmt: skip


def test_no_circles():
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    imports = {name: set(graph.find_modules_directly_imported_by(name)) for name in graph.modules}
    assert "lerobot_policy_einsort.modeling_einsort" in imports
    # LeRobot imports its plug-in by name, when a compressed policy is loaded.
    imports["einsort_vla.lerobot.loading"].add("lerobot_policy_einsort.modeling_einsort")
    order = list(TopologicalSorter(imports).static_order())  # raises at a circle, and names it
    assert order.index("einsort_vla.families.smolvla") < order.index("einsort_vla.checkpoint")
