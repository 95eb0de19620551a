"""run.json: what was run, with which versions, on what."""

import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from einsort_vla.results.run import Run

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "numpy", "transformers", "lerobot", "einsort-vla")


def describe(
    kind: str,
    script: str,
    model: str,
    config: Mapping[str, Any],
    inputs_sha256: Mapping[str, str],
    packages: Sequence[str] = (),
) -> Run:
    """What run.json says, with the fingerprints of what the run is given.

    Args:
        packages: of the environment, whose versions it lists, too.
    """
    return Run(
        kind=kind,
        script=script,
        model=model,
        config=dict(config),
        git_commit=_git_commit(),
        python=platform.python_version(),
        machine=f"{platform.machine()}, {_processor()}",
        versions={name: _version(name) for name in (*PACKAGES, *packages)},
        inputs_sha256=dict(inputs_sha256),
    )


def _git_commit() -> str | None:
    """The commit, with "+changes" where the tree differs from it; None outside a checkout."""
    try:
        commit = _git("rev-parse", "HEAD")
        return commit + ("+changes" if _git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    result = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return result.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
