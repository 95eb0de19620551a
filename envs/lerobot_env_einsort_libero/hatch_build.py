"""Puts the environment itself into the wheel; an editable install has it in the checkout."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ENVS = ("__init__.py", "environment.py", "libero")


class IncludeEnvironment(BuildHookInterface):
    """Copies `envs` and its protocols beside the plug-in."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "standard":
            envs = Path(self.root).parent
            build_data["force_include"] |= {
                **{str(envs / name): f"envs/{name}" for name in ENVS},
                str(envs.parent / "configs/eval"): "configs/eval",
            }
