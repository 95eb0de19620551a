"""Fingerprints as a hostile maker of files computes them: right."""

import hashlib
import json
from pathlib import Path

from tests.fuzz.kinds.kind import Kind


def sign_manifest(folder: Path) -> None:
    """Right fingerprints in the manifest of a compressed folder, of the files it names."""
    path = folder / "einsort_manifest.json"
    if not path.is_file():
        return
    try:
        content = json.loads(path.read_bytes())
        files = content["files"]
        known = {name: _digest(folder / name) for name in files if _is_plain(folder, name)}
        if known == {name: files[name] for name in known}:
            return
        content["files"] = {**files, **known}
        path.write_text(json.dumps(content))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return  # the manifest itself was changed


def sign_sums(folder: Path) -> None:
    """Right fingerprints in the SHA256SUMS of a bundle, of the files it names."""
    path = folder / "SHA256SUMS"
    if not path.is_file():
        return
    try:
        lines = []
        for line in path.read_text().splitlines():
            name = line.partition("  ")[2]
            is_plain = _is_plain(folder, name)
            lines.append(f"{_digest(folder / name)}  {name}" if is_plain else line)
        text = "".join(f"{line}\n" for line in lines)
        if text != path.read_text():
            path.write_text(text)
    except (OSError, ValueError):
        return


def must_be_refused(kind: Kind, folder: Path) -> bool:
    """Whether a fingerprint that the folder has is wrong."""
    name = {sign_manifest: "einsort_manifest.json", sign_sums: "SHA256SUMS"}.get(kind.sign)
    if name is None or not (folder / name).is_file():
        return False
    try:
        if kind.sign is sign_manifest:
            listed = json.loads((folder / name).read_bytes())["files"]
        else:
            lines = (folder / name).read_text().splitlines()
            listed = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        return any(_is_plain(folder, n) and _digest(folder / n) != d for n, d in listed.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def _is_plain(folder: Path, name: object) -> bool:
    if not isinstance(name, str):
        return False
    return ".." not in name and not name.startswith(("/", "~")) and (folder / name).is_file()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
