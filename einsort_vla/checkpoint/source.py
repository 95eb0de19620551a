"""A dense policy or model on disk: its config, and its tensors one at a time, from any shard."""

import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from einsort_vla.checkpoint.transformers_layers import TransformersFamily, linear_weights
from einsort_vla.codec import Shape
from einsort_vla.errors import CheckpointError
from einsort_vla.families import TYPE_PREFIX, Family, family_of

WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
QUANTIZATION, METHOD = "quantization_config", "einsort"  # Transformers' key, and our name there


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies, and what it is, in the names of safetensors (`BF16`)."""

    file: Path
    dtype: str
    shape: tuple[int, ...]


class DenseFolder:
    """A dense policy folder, whose tensors stay on disk until they are asked for.

    Attributes:
        policy_type: `type` of a LeRobot policy's config.json, `model_type` of a Transformers one's.
        tensors: name to what is stored.

    Raises:
        CheckpointError: the folder is no policy, is compressed already, or a shard is missing,
            damaged or not as its index says.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = read_config(folder)
        self.policy_type = policy_type(folder, self.config)
        if is_compressed(self.config) or _quantization(self.config):
            method = _quantization(self.config).get("quant_method", self.policy_type)
            raise CheckpointError(
                f"{folder} is already compressed ({method}); give the dense policy instead."
            )
        self.files = weight_files(folder)
        self.tensors = {name: stored for file in self.files for name, stored in _read_header(file)}
        if (folder / INDEX).is_file() and len(self.files) > 1:
            self._check_index(_read_json(folder / INDEX)["weight_map"])

    @property
    def is_lerobot(self) -> bool:
        """Whether it is a LeRobot policy, not a Transformers model."""
        return is_lerobot(self.config)

    @cached_property
    def family(self) -> Family | TransformersFamily:
        """Which of its tensors are compressible.

        Raises:
            UsageError: a LeRobot policy type that is no family.
            CheckpointError: a model that the installed Transformers does not know.
        """
        if self.is_lerobot:
            return family_of(self.policy_type)
        return TransformersFamily(self.in_model)

    @cached_property
    def in_model(self) -> dict[str, str]:
        """Of a Transformers model: stored name to name in it of the weights that are compressible.

        Raises:
            CheckpointError: a model that the installed Transformers does not know.
        """
        return linear_weights(self.folder, self.tensors)

    @property
    def matrices(self) -> dict[str, Shape]:
        """Name to (out_features, in_features) of all compressible ones."""
        return {
            name: (stored.shape[0], stored.shape[1])
            for name, stored in self.tensors.items()
            if self.family.dense_reason(name, stored.shape) is None
        }

    @property
    def has_outlying_inputs(self) -> bool:
        """Whether its layers see inputs with outliers: those of language models do."""
        return not self.is_lerobot

    @property
    def n_bytes(self) -> int:
        """Of the weight files."""
        return sum(file.stat().st_size for file in self.files)

    def get(self, name: str) -> Tensor:
        """One tensor, in memory of its own only while it is used.

        Raises:
            CheckpointError: its file is damaged or truncated.
        """
        with open_weights(self.tensors[name].file) as file:
            return file.get_tensor(name)

    @cached_property  # gigabytes are read once, however many ask
    def sha256(self) -> str:
        """Fingerprint of the weights: of the file, or of its shards' fingerprints."""
        digests = [file_sha256(file) for file in self.files]
        if len(digests) == 1:
            return digests[0]
        return hashlib.sha256("".join(digests).encode()).hexdigest()

    def _check_index(self, weight_map: dict[str, str]) -> None:
        for name, shard in weight_map.items():
            if name not in self.tensors or self.tensors[name].file.name != shard:
                raise CheckpointError(
                    f"{self.folder / INDEX} says that {shard} holds {name}; it does not."
                )


def fetch_from_hub(hub_id: str, revision: str | None = None) -> Path:
    """The local folder of a model on the hub; that it is fetched is said on the error output.

    Raises:
        CheckpointError: it cannot be reached, or there is none of that name.
    """
    print(f"{hub_id} is no folder here; fetching it from the hub.", file=sys.stderr)
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(hub_id, revision=revision))
    except Exception as error:  # whatever the hub's client raises
        close = _closest_folder(Path(hub_id))
        hint = f" Did you mean the folder {close}?" if close else ""
        raise CheckpointError(
            f"{hub_id!r} is neither a folder here nor a hub model that can be reached "
            f"({type(error).__name__}).{hint}"
        ) from error


def _closest_folder(path: Path) -> Path | None:
    """The folder whose name is that of `path` but for a typing error in any part of it."""
    found = Path(path.anchor)
    for part in path.relative_to(path.anchor).parts:
        names = [entry.name for entry in found.iterdir() if entry.is_dir()]
        close = get_close_matches(part, names, n=1)
        if not close:
            return None
        found /= close[0]
    return found


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a policy folder, as plain data.

    Raises:
        CheckpointError: the folder, its config.json or its weights are missing or unreadable.
    """
    if not folder.exists():
        raise CheckpointError(f"the policy folder {folder} does not exist.")
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is a file; a policy is a folder with a {CONFIG}.")
    has_weights = (folder / WEIGHTS).is_file() or (folder / INDEX).is_file()
    for name, is_there in ((CONFIG, (folder / CONFIG).is_file()), (WEIGHTS, has_weights)):
        if not is_there:
            found = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
            raise CheckpointError(f"{folder} is not a policy: no {name} in it (found: {found}).")
    config = _read_json(folder / CONFIG)
    policy_type(folder, config)
    return config


def policy_type(folder: Path, config: dict[str, Any]) -> str:
    """`type` of a LeRobot policy, or `model_type` of a Transformers model.

    Raises:
        CheckpointError: the config names neither.
    """
    named = config.get("type", config.get("model_type"))
    if not isinstance(named, str):
        raise CheckpointError(f"{folder / CONFIG} names no policy type.")
    return named


def is_lerobot(config: dict[str, Any]) -> bool:
    """Whether a config.json is that of a LeRobot policy, not of a Transformers model."""
    return "type" in config


def is_compressed(config: dict[str, Any]) -> bool:
    """Whether a config.json is that of a folder that was compressed here."""
    if is_lerobot(config):
        return config["type"].startswith(TYPE_PREFIX)
    return _quantization(config).get("quant_method") == METHOD


def _quantization(config: dict[str, Any]) -> dict[str, Any]:
    found = config.get(QUANTIZATION)
    return found if isinstance(found, dict) else {}


def weight_files(folder: Path) -> list[Path]:
    """The one weight file of a policy folder, or its shards.

    Raises:
        CheckpointError: the index is damaged or a shard is missing.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    try:
        names = sorted(set(_read_json(folder / INDEX)["weight_map"].values()))
        files = [folder / name for name in names]
    except (KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{folder / INDEX} has no weight_map.") from error
    if missing := [file.name for file in files if not file.is_file()]:
        raise CheckpointError(
            f"{folder} lacks {', '.join(missing)} of its {len(files)} shards; fetch it again."
        )
    return files


def file_sha256(path: Path) -> str:
    """Fingerprint of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def open_weights(path: Path) -> Iterator[Any]:
    """A safetensors file.

    Raises:
        CheckpointError: it is missing, damaged or truncated.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist.")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged or truncated: {error}") from error


def _read_header(path: Path) -> list[tuple[str, StoredTensor]]:
    with open_weights(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return [
            (n, StoredTensor(path, s.get_dtype(), tuple(s.get_shape()))) for n, s in slices.items()
        ]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object.")
    return content
