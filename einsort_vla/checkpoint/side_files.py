"""What travels beside the weights of a policy, what is left out of a copy, and what is refused.

Other forms of the same weights, and what training and version control leave, are left out by name.
Everything else is copied, even what is never used here; code is copied and never run.
"""

import os
import shutil
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from safetensors import SafetensorError, safe_open

from einsort_vla.checkpoint.read_files import Identity, leads_out
from einsort_vla.errors import CheckpointError, shown
from einsort_vla.reading import MAX_PATH, is_inside, is_pointer, what_is_at

LARGE = 2**24  # bytes; a bigger side file is named, as it may be what the copy's size comes from
MAX_NAMED = 20
_LEFT_OUT_FOLDERS = (
    ".git", ".hg", ".svn", ".cache", "__pycache__", ".ipynb_checkpoints",
    "checkpoint-*", "global_step*", "training_state", "saved_model",
)  # fmt: skip
_LEFT_OUT_FILES = (
    ".git", "*.pt", "*.pth", "*.ckpt", "*.ckpt.*", "*.gguf", "*.ggml", "*.onnx", "*.onnx_data*",
    "*.onnx.data", "*.msgpack", "*.h5", "*.tflite", "*.ot", "*.mlmodel", "*.nemo", "*.pdparams",
    "*.engine", "saved_model.pb", "tf_model*", "flax_model*",
    "*pytorch_model*.bin", "model*.bin", "optimizer*.bin", "scheduler*.bin", "training_args.bin",
    "openvino_model.*", "*.bin.index.json", "*.h5.index.json", "*.msgpack.index.json",
    "*.safetensors.index.json", "optimizer*.safetensors", "model*.safetensors", "ema*.safetensors",
    "*pytorch_model*.safetensors", "consolidated*.safetensors",
)  # fmt: skip


@dataclass
class SideFiles:
    """The side files of a policy folder, as they are now; equal if nothing changed.

    Attributes:
        folder: where they lie.
        travelling: name, relative to the folder, to the file's identity.
        left_out: names of what is not copied; a folder ends with "/".
        pointers: names of those travelling that are Git-LFS pointers, not the files they stand for.
    """

    folder: Path
    travelling: dict[str, Identity] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    pointers: list[str] = field(default_factory=list)

    def only(self, pattern: str) -> "SideFiles":
        """Those travelling whose names are of a pattern, whose `*` takes folders, too."""
        chosen = {n: own for n, own in self.travelling.items() if fnmatchcase(n, pattern)}
        return SideFiles(self.folder, chosen)

    def without(self, destination: Path) -> "SideFiles":
        """Those travelling that another folder lacks."""
        lacking = {n: own for n, own in self.travelling.items() if not (destination / n).exists()}
        return SideFiles(self.folder, lacking)

    def copy(self, destination: Path) -> None:
        """Copy what travels; the copies can be written to, whatever the mode of the originals."""
        for name in self.travelling:
            (destination / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.folder / name, destination / name)

    def check_unchanged(self, now: "SideFiles") -> None:
        """Refuse a copy of files that changed meanwhile.

        Args:
            now: of the same folder, after copying.

        Raises:
            CheckpointError: they are others.
        """
        changed = {name for name, _ in self.travelling.items() ^ now.travelling.items()}
        if changed:
            raise CheckpointError(
                f"{self.folder / min(changed)} was changed, added or taken away while the "
                "folder was copied. Run the command again once nothing writes there."
            )

    def notes(self) -> list[str]:
        """What a reader of the copy should know, as sentences."""
        large = [
            f"{name} ({seen.n_bytes / 1e6:.1f} MB)"
            for name, seen in self.travelling.items()
            if seen.n_bytes > LARGE
        ]
        told = {
            "Left out, as other forms of the weights or no part of a policy": self.left_out,
            "Copied although large": large,
            "Copied, but only pointers of Git-LFS (fetch the files with `git lfs pull`)": (
                self.pointers
            ),
        }
        return [f"{what}: {_listed(names)}." for what, names in told.items() if names]


def side_files(folder: Path, replaced: Collection[str], weights: Collection[str] = ()) -> SideFiles:
    """Sort all that lies in a policy folder.

    Links are followed within the folder, and from a hub's snapshot to its blobs, no further.

    Args:
        folder: of a policy.
        replaced: names in it that a copy has its own of.
        weights: names of the policy's tensors; a safetensors file with one of them holds the same
            weights.

    Raises:
        CheckpointError: a link leads out of the folder, to a folder or nowhere, there is a pipe,
            socket or device, a manifest may not have a name, or a folder cannot be read.
    """
    found, tensors = SideFiles(folder), set(weights)
    for path, name in _walk(folder, found.left_out):
        if name in replaced:
            check_kind(path, folder)
        elif _is_left_out(path, tensors):
            found.left_out.append(name)
        else:
            check_kind(path, folder)
            _check_name(name, folder)
            found.travelling[name] = Identity.of(path)
            if _is_pointer(path):
                found.pointers.append(name)
    return found


def _walk(folder: Path, left_out: list[str]) -> Iterator[tuple[Path, str]]:
    """All that is not a folder, in order; folders that are left out are told and passed by."""

    def refuse(error: OSError) -> None:
        raise CheckpointError(f"{shown(error.filename)} cannot be read: {error.strerror}.")

    for inside, folders, files in os.walk(folder, onerror=refuse):
        at = Path(inside)
        out = {name for name in folders if _matches(name, _LEFT_OUT_FOLDERS)}
        left_out.extend(f"{(at / name).relative_to(folder).as_posix()}/" for name in sorted(out))
        links = [name for name in folders if name not in out and (at / name).is_symlink()]
        folders[:] = sorted(set(folders) - out - set(links))
        for name in sorted([*files, *links]):
            yield at / name, (at / name).relative_to(folder).as_posix()


def _matches(name: str, patterns: Collection[str]) -> bool:
    return any(fnmatchcase(name.lower(), pattern) for pattern in patterns)


def _is_left_out(path: Path, weights: set[str]) -> bool:
    if "processor" in path.name and path.suffix == ".safetensors":
        return False  # the state of a step of LeRobot's processors
    if _matches(path.name, _LEFT_OUT_FILES):
        return True
    if path.suffix != ".safetensors" or not stat.S_ISREG(path.lstat().st_mode):
        return False
    try:
        with safe_open(path, framework="numpy") as file:
            return bool(weights & set(file.keys()))
    except (SafetensorError, OSError):
        return False  # not what its name says: copied like any file


def check_kind(path: Path, folder: Path) -> None:
    """Refuse to take what is no plain file of a folder.

    Raises:
        CheckpointError: it is a pipe, socket, device or folder, or a link on the way to it leads
            out of the folder, nowhere or to none of these.
    """
    if path.is_symlink() or not path.parent.resolve().is_relative_to(folder.resolve()):
        _check_link(path, folder)
    elif not path.is_file():
        raise CheckpointError(f"{shown(path)} {what_is_at(path)}")


def _check_link(path: Path, folder: Path) -> None:
    if not path.is_file():
        way = "is a link to what " if path.exists() else ""
        raise CheckpointError(f"{shown(path)} {way}{what_is_at(path)}")
    if leads_out(path, folder):
        raise CheckpointError(
            f"{shown(path)} is a link that leads out of {folder} (to "
            f"{shown(os.path.realpath(path))}). Put the file itself there, if it is to be copied."
        )


def _check_name(name: str, folder: Path) -> None:
    if not is_inside(name):
        raise CheckpointError(
            f"{folder} holds a file that no copy may have: {shown(name)}. Rename it: a name is "
            f"text without backslashes, of {MAX_PATH} bytes at most with its folders."
        )


def _is_pointer(path: Path) -> bool:
    with path.open("rb") as file:
        return is_pointer(file.read(64))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(map(shown, names[:MAX_NAMED])) + more
