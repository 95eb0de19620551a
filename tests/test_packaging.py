"""The library imports lean, and its parts export what they say."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _run(code):
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr


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
        "import sys, torch;"
        "import einsort_vla.codec, einsort_vla.plan, einsort_vla.checkpoint, einsort_vla.layers;"
        f"assert not [m for m in {heavy} if m in sys.modules];"
        "assert not torch.cuda.is_initialized()"
    )
    _run(code)


PACKAGES = sorted(path.parent for path in (ROOT / "einsort_vla").rglob("__init__.py"))


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda folder: folder.name)
def test_all_is_true(folder):
    module = importlib.import_module(".".join(folder.relative_to(ROOT).parts))
    assert all(hasattr(module, attribute) for attribute in getattr(module, "__all__", ()))


def test_the_script_finds_the_libero_package_and_not_itself():
    code = (
        "import sys, runpy; sys.argv = ['eval/libero.py', '--help'];"
        "sys.path.insert(0, 'eval')\n"
        "try: runpy.run_path('eval/libero.py', run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0\n"
        "import libero.libero.benchmark"
    )
    _run(code)
