"""`einsort-vla diff OLD NEW PATCH` and `einsort-vla patch OLD PATCH DST`."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from tyro.conf import Positional

from einsort_vla.cli.console import size


@dataclass(frozen=True)
class Diff:
    """Write what changed between two compressed folders, for a robot that has the old one."""

    old: Positional[Path]
    """Folder that the robot has."""
    new: Positional[Path]
    """Folder that it should have."""
    patch: Positional[Path]
    """File to write."""

    def run(self, console: Console) -> int:
        from einsort_vla.checkpoint import has_manifest, write_patch

        write_patch(self.old, self.new, self.patch)
        for folder in (self.old, self.new):
            if not has_manifest(folder):
                console.print(
                    f"{folder} has no fingerprints, as Transformers' save_pretrained wrote it; "
                    "its files are taken as they are.",
                    soft_wrap=True,
                )
        whole = sum(p.stat().st_size for p in self.new.rglob("*") if p.is_file())
        console.print(
            f"{self.patch}: {size(self.patch.stat().st_size)} instead of the whole folder's "
            f"{size(whole)}. On the robot: einsort-vla patch {self.old} {self.patch} DST",
            soft_wrap=True,
        )
        return 0


@dataclass(frozen=True)
class Patch:
    """Make the new folder out of the old one and a patch; every file is checked by its SHA-256."""

    old: Positional[Path]
    """Folder that the patch was made from."""
    patch: Positional[Path]
    """File that `einsort-vla diff` wrote."""
    destination: Positional[Path]
    """Folder to write; it must not exist."""

    def run(self, console: Console) -> int:
        from einsort_vla.checkpoint import apply_patch

        apply_patch(self.old, self.patch, self.destination)
        console.print(f"{self.destination}: complete; every file has its SHA-256.")
        return 0
