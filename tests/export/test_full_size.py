"""SmolVLA's 450 M, exported: as near to PyTorch as small ones, in engines of its streams' size."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from einsort_vla.runtime import open_bundle
from einsort_vla.runtime.audit import audit

TOOL = Path(__file__).parents[1] / "full_size.py"
PROGRAM = Path(sys.executable).with_name("einsort-vla")


@pytest.mark.slow
def test_export_of_a_real_policy(tmp_path, reference_policy):
    subprocess.run([sys.executable, TOOL, "smolvla", tmp_path / "dense"], check=True)
    _add_processors(tmp_path / "dense", reference_policy)
    for command in (
        ["compress", tmp_path / "dense", tmp_path / "coded", "--rate", "0.75"],
        ["export", tmp_path / "coded", tmp_path / "bundle", "--target", "rtx40"],
        ["verify", tmp_path / "bundle", "--runtime", "onnx"],
        ["build", tmp_path / "bundle"],
    ):
        subprocess.run([PROGRAM, *command], check=True)
    found = audit(open_bundle(tmp_path / "bundle"))
    assert found.failures == []
    assert len({row.name for row in found.rows}) > 250
    needed = sum(size.needed for size in found.sizes)
    assert sum(size.engine - size.texts for size in found.sizes) < 1.02 * needed


def _add_processors(folder, reference_policy):
    """Those of the reference policy, for longer texts."""
    for path in reference_policy.glob("policy_*"):
        shutil.copy(path, folder)
    preprocessor = folder / "policy_preprocessor.json"
    content = json.loads(preprocessor.read_text())
    for step in content["steps"]:
        if "tokenizer_name" in step["config"]:
            step["config"] |= {"max_length": 48, "tokenizer_name": str(folder / "vlm")}
    preprocessor.write_text(json.dumps(content))
