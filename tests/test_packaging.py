"""The library imports lean, and its parts export what they say."""

import importlib
import subprocess
import sys

import pytest


def _run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


def test_importing_the_library_loads_nothing_heavy():
    _run("import sys, einsort_vla, einsort_vla.errors; assert 'torch' not in sys.modules")
    heavy = (
        "lerobot",
        "transformers",
        "libero",
        "robosuite",
        "mujoco",
        "gymnasium",
        "tyro",
        "rich",
    )
    code = (
        "import sys, torch, time; t = time.perf_counter();"
        "import einsort_vla.codec, einsort_vla.plan, einsort_vla.checkpoint, einsort_vla.layers;"
        "assert time.perf_counter() - t < 2;"
        f"assert not [m for m in {heavy} if m in sys.modules];"
        "assert not torch.cuda.is_initialized()"
    )
    _run(code)


@pytest.mark.parametrize("name", ["codec", "plan", "checkpoint", "layers", "kernels", "cli"])
def test_all_is_true(name):
    module = importlib.import_module(f"einsort_vla.{name}")
    assert list(module.__all__) == sorted(
        module.__all__, key=lambda n: (not n.isupper(), not n[0].isupper(), n)
    )
    assert all(hasattr(module, attribute) for attribute in module.__all__)
