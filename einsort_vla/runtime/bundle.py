"""The folder that `einsort-vla export` writes: what is in it, and whether it is whole."""

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from einsort_vla.errors import CheckpointError
from einsort_vla.runtime.graph_file import check_graph
from einsort_vla.runtime.manifest import (
    EXPORT_AGAIN,
    GRAPHS,
    MANIFEST,
    Manifest,
    Part,
    read_manifest,
)
from einsort_vla.signature import SIGNATURE, check_signature, sha256

SUMS = "SHA256SUMS"
PLUGINS, ENGINES = "plugin", "engines"
MAX_SUMS = 2**20  # bytes of the list of fingerprints
_LINE = re.compile(r"([0-9a-f]{64})  ([^\\\x00-\x1f\x7f]+)")


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files have been compared with their fingerprints.

    Attributes:
        folder: where it lies.
        manifest: content of its manifest.json.
        fingerprint: of the whole, SHA-256 of its list of fingerprints.
        is_signed: whether a key that the user trusts has signed that list.
    """

    folder: Path
    manifest: Manifest
    fingerprint: str
    is_signed: bool = False

    @property
    def parts(self) -> dict[str, Part]:
        """The graphs that engines are built of, by name."""
        return self.manifest.parts

    def graph(self, part: str) -> Path:
        """The graph with function bodies, for ONNX Runtime."""
        return self.folder / GRAPHS / f"{part}.onnx"

    def engine_graph(self, part: str) -> Path:
        """Its twin in the target's precision and without bodies, for TensorRT."""
        return self.folder / GRAPHS / f"{part}.engine.onnx"

    @property
    def plugin(self) -> Path:
        """The plugin's library, for the target's machine. It is code: loading it is trusting it.

        Raises:
            CheckpointError: the bundle has none for it.
        """
        machine = self.manifest.target.machine
        path = self.folder / PLUGINS / plugin_name(str(machine))
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


def is_bundle(folder: Path) -> bool:
    """Whether a folder looks like one; `open_bundle` tells."""
    return (folder / SUMS).is_file()


def write_sums(folder: Path) -> None:
    """Write the fingerprints of all files, in the form that `sha256sum -c` reads.

    Raises:
        CheckpointError: a file has a name that cannot be listed, or is no plain file.
    """
    lines = [f"{sha256(folder / name)}  {name}\n" for name in sorted(_files(folder))]
    _parse(folder, "".join(lines))
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def open_bundle(folder: Path, trusted_keys: Sequence[Path] = ()) -> Bundle:
    """A bundle, once every byte of it has been checked. Nothing of it is run or loaded.

    Args:
        folder: where it lies.
        trusted_keys: files of public keys; with any, one of them must have signed the bundle.

    Raises:
        CheckpointError: it is no bundle, of another version, not signed by a trusted key, a file is
            missing or changed, or one says what no export says.
        MissingDependency: keys are given, and the package cryptography is not installed.
    """
    if not folder.is_dir():
        raise CheckpointError(f"the folder {folder} does not exist.")
    if not (folder / SUMS).is_file() or not (folder / MANIFEST).is_file():
        raise CheckpointError(
            f"{folder} is no exported policy: it has no {MANIFEST} with {SUMS}. "
            "`einsort-vla export` writes such a folder."
        )
    sizes = _files(folder)
    if trusted_keys:
        check_signature(folder / SUMS, trusted_keys)
    for name, expected in _listed(folder, sizes).items():
        if sha256(folder / name) != expected:
            raise CheckpointError(
                f"{folder / name} is not what was exported: its SHA-256 differs. Copy or export it "
                "again."
            )
    for name in sizes:
        if name.endswith(".onnx"):
            check_graph(folder / name)
    manifest = read_manifest(folder, sizes)
    return Bundle(folder, manifest, sha256(folder / SUMS), bool(trusted_keys))


def _listed(folder: Path, sizes: dict[str, int]) -> dict[str, str]:
    """Fingerprint by file name, of all files that a bundle must have."""
    if (folder / SUMS).stat().st_size > MAX_SUMS:
        raise CheckpointError(f"{folder / SUMS} is damaged: it has more than {MAX_SUMS} bytes.")
    listed = _parse(folder, (folder / SUMS).read_text(encoding="utf-8", errors="replace"))
    if unlisted := sorted(sizes.keys() - listed.keys()):
        raise CheckpointError(f"{folder} holds {unlisted[0]!r}, which {SUMS} does not list.")
    if lacking := sorted(listed.keys() - sizes.keys()):
        raise CheckpointError(f"{folder / lacking[0]} is missing; copy the whole bundle again.")
    return listed


def _parse(folder: Path, text: str) -> dict[str, str]:
    listed: dict[str, str] = {}
    for line in text.split("\n")[:-1]:
        match = _LINE.fullmatch(line)
        name = match[2] if match else ""
        path = PurePosixPath(name)
        is_inside = not path.is_absolute() and ".." not in path.parts and str(path) == name
        if match is None or not is_inside or name in listed or path.parts[0] in _NOT_LISTED:
            raise CheckpointError(f"{folder / SUMS} is damaged: {line[:80]!a}. {EXPORT_AGAIN}")
        listed[name] = match[1]
    if not text.endswith("\n"):
        raise CheckpointError(
            f"{folder / SUMS} is damaged: its last line does not end. {EXPORT_AGAIN}"
        )
    return listed


_NOT_LISTED = (SUMS, SUMS + SIGNATURE, ENGINES)  # made of what is exported, later


def _files(folder: Path) -> dict[str, int]:
    """What is exported, with its bytes: all files but their list and what is made of them later.

    Raises:
        CheckpointError: a folder or file, wherever it is, is a link or no plain file. What is
            written into a bundle would land where a link points.
    """
    found = {}
    for path in _walk(folder):
        mode = path.lstat().st_mode
        name = path.relative_to(folder)
        if stat.S_ISREG(mode):
            if name.parts[0] not in _NOT_LISTED:
                found[name.as_posix()] = path.stat().st_size
        elif not stat.S_ISDIR(mode):
            raise CheckpointError(
                f"{path} is a link, or no plain file; no export writes one. Copy the bundle with "
                "what its links point to: cp -rL."
            )
    return found


def _walk(folder: Path) -> Iterator[Path]:
    for inside, folders, names in os.walk(folder):
        for name in (*folders, *names):
            yield Path(inside, name)
