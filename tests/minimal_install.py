"""In an environment with the wheel and what it declares alone: packages import, commands run.

python tests/minimal_install.py, from any folder; `make wheel` makes the environment.
"""

import importlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

import einsort_vla
from einsort_vla.errors import MissingDependency

PROGRAM = Path(sys.executable).with_name("einsort-vla")


def import_everything() -> int:
    """Every package imports or says what to install; so does every module but for what a package
    that names its extra imports from it."""
    folder = Path(einsort_vla.__file__).parent
    n_imported = 0
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        try:
            importlib.import_module(name)
            n_imported += 1
        except MissingDependency as error:
            print(f"{name}: {error}")
        except ModuleNotFoundError as error:
            if is_package or (error.name or "").startswith("einsort_vla"):
                raise
            print(f"{name}: needs {error.name}")
    return n_imported


def main() -> None:
    assert Path(einsort_vla.__file__).is_relative_to(sys.prefix), "this is not the installed wheel"
    print(f"{import_everything()} packages and modules import")
    with tempfile.TemporaryDirectory() as folder:
        dense, coded = Path(folder) / "dense", Path(folder) / "coded"
        dense.mkdir()
        weights = {f"model.{name}.weight": torch.randn(96, 64) for name in ("first", "second")}
        save_file(weights, dense / "model.safetensors")
        (dense / "config.json").write_text(json.dumps({"type": "smolvla", "chunk_size": 8}))
        subprocess.run([PROGRAM, "compress", dense, coded, "--rate", "0.7"], check=True)
        subprocess.run([PROGRAM, "inspect", coded], check=True)
        subprocess.run([PROGRAM, "verify", coded, "--against", dense], check=True)


if __name__ == "__main__":
    main()
