"""The folder that `einsort-vla export` writes: what is in it, and whether it is whole."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from einsort_vla.errors import CheckpointError

FORMAT, FORMAT_VERSION = "einsort-bundle", 1
MANIFEST, SUMS = "manifest.json", "SHA256SUMS"
GRAPHS, PLUGINS, SAMPLES, ENGINES = "graphs", "plugin", "samples.npz", "engines"
CHUNK, WEIGHT_FILE = "chunk", "weights.bin"


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files have been compared with their fingerprints.

    Attributes:
        folder: where it lies.
        manifest: content of its manifest.json; docs/export.md has every key.
        fingerprint: of the whole, SHA-256 of its list of fingerprints.
    """

    folder: Path
    manifest: dict[str, Any]
    fingerprint: str

    @property
    def parts(self) -> dict[str, dict[str, Any]]:
        """The graphs that engines are built of, by name."""
        return self.manifest["parts"]

    def graph(self, part: str) -> Path:
        """The graph with function bodies, for ONNX Runtime."""
        return self.folder / GRAPHS / f"{part}.onnx"

    def engine_graph(self, part: str) -> Path:
        """Its twin in the target's precision and without bodies, for TensorRT."""
        return self.folder / GRAPHS / f"{part}.engine.onnx"

    @property
    def plugin(self) -> Path:
        """The plugin's library, for the target's machine.

        Raises:
            CheckpointError: the bundle has none for it.
        """
        machine = self.manifest["target"]["machine"]
        path = self.folder / PLUGINS / plugin_name(machine)
        if not path.is_file():
            there = sorted(p.name for p in (self.folder / PLUGINS).glob("*.so"))
            raise CheckpointError(
                f"{self.folder} has no plugin for {machine}; it has {', '.join(there) or 'none'}. "
                "Export for this machine's target, or compile the plugin's source in it."
            )
        return path


def plugin_name(machine: str) -> str:
    """Of the plugin's library for a machine."""
    return f"libeinsort_plugin-{machine}.so"


def sha256(path: Path) -> str:
    """The fingerprint of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def is_bundle(folder: Path) -> bool:
    """Whether a folder looks like one; `open_bundle` tells."""
    return (folder / SUMS).is_file()


def write_sums(folder: Path) -> None:
    """Write the fingerprints of all files, in the form that `sha256sum -c` reads."""
    lines = [f"{sha256(folder / name)}  {name}\n" for name in sorted(_files(folder))]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def open_bundle(folder: Path) -> Bundle:
    """A bundle, once every byte of it has been checked.

    Raises:
        CheckpointError: it is no bundle, of another version, or a file is missing or changed.
    """
    if not (folder / SUMS).is_file() or not (folder / MANIFEST).is_file():
        raise CheckpointError(
            f"{folder} is no exported policy: it has no {MANIFEST} with {SUMS}. "
            "`einsort-vla export` writes such a folder."
        )
    listed = _listed(folder)
    for name, expected in listed.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{path} is missing; copy the whole bundle again.")
        if sha256(path) != expected:
            raise CheckpointError(
                f"{path} is not what was exported: its SHA-256 differs. Copy or export it again."
            )
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    found = (manifest.get("format"), manifest.get("version"))
    if found != (FORMAT, FORMAT_VERSION):
        raise CheckpointError(
            f"{folder} is of format {found[0]} version {found[1]}; this program reads "
            f"{FORMAT} version {FORMAT_VERSION}. Export it again with this version."
        )
    return Bundle(folder, manifest, sha256(folder / SUMS))


def _listed(folder: Path) -> dict[str, str]:
    """Fingerprint by file name, of all files that a bundle must have."""
    listed = {}
    for line in (folder / SUMS).read_text(encoding="utf-8", errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        if len(digest) != 64 or not name or ".." in Path(name).parts or Path(name).is_absolute():
            raise CheckpointError(f"{folder / SUMS} is damaged: {line[:80]!r}.")
        listed[name] = digest
    if unlisted := sorted(_files(folder) - listed.keys()):
        raise CheckpointError(f"{folder} holds {unlisted[0]}, which {SUMS} does not list.")
    if MANIFEST not in listed:
        raise CheckpointError(f"{folder / SUMS} is damaged: it does not list {MANIFEST}.")
    return listed


def _files(folder: Path) -> set[str]:
    """What is exported: all files but their list, and what is made of them later."""
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {name.as_posix() for name in names if name.parts[0] not in (SUMS, ENGINES)}
