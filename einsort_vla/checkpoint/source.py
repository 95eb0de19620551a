"""A dense policy or model on disk: its config, and its tensors one at a time, from any shard."""

import hashlib
import math
import sys
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from einsort_vla.checkpoint.not_dense import check_dense, check_no_adapter
from einsort_vla.checkpoint.read_files import ReadFiles
from einsort_vla.checkpoint.transformers_layers import (
    LinearWeight,
    TransformersFamily,
    linear_weights,
)
from einsort_vla.codec import Shape
from einsort_vla.errors import CheckpointError, UsageError, cut
from einsort_vla.families import TYPE_PREFIX, Family, family_of
from einsort_vla.reading import AGAIN, as_record, check_file, is_inside, read_object
from einsort_vla.tensors import StoredTensor, TensorFile, open_tensors

WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
QUANTIZATION, METHOD = "quantization_config", "einsort"  # Transformers' key, and our name there


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
        self._read = ReadFiles(folder / CONFIG, *self.files)
        self.tensors: dict[str, StoredTensor] = {}
        for file in self.files:
            self._add(open_tensors(file))
        if WEIGHTS not in (file.name for file in self.files):
            self._check_index(_weight_map(folder))
        check_dense(folder, {name: (own.dtype, own.shape) for name, own in self.tensors.items()})

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
            try:
                return family_of(self.policy_type)
            except UsageError as error:
                raise UsageError(f"{self.folder}: {error}") from error
        return TransformersFamily(self._linear)

    @property
    def in_model(self) -> dict[str, str]:
        """Of a Transformers model: stored name to name in it of the weights that are compressible.

        Raises:
            CheckpointError: a model that the installed Transformers does not know, or of which
                nothing is compressible.
        """
        return {name: weight.in_model for name, weight in self._linear.items()}

    @cached_property
    def _linear(self) -> dict[str, LinearWeight]:
        shapes = {name: stored.shape for name, stored in self.tensors.items()}
        return linear_weights(self.folder, self.config, shapes)

    @property
    def matrices(self) -> dict[str, Shape]:
        """Name to (out_features, in_features) of all compressible ones.

        Raises:
            CheckpointError: there is none.
        """
        return self._matrices

    @cached_property
    def _matrices(self) -> dict[str, Shape]:
        if not self.is_lerobot:
            return {name: weight.shape for name, weight in self._linear.items()}
        found = {
            name: (stored.shape[0], stored.shape[1])
            for name, stored in self.tensors.items()
            if self.family.dense_reason(name, stored.shape) is None
        }
        if not found:
            raise CheckpointError(
                f"{self.folder} has nothing to code: none of its {len(self.tensors)} tensors is "
                f"the weight of a linear layer that a {self.policy_type!r} policy uses."
            )
        return found

    @property
    def n_weights(self) -> int:
        """Numbers in its weight files, without those that inference never uses."""
        dropped = self.family.dropped_reasons(self.tensors.keys())
        used = (stored for name, stored in self.tensors.items() if name not in dropped)
        return sum(math.prod(stored.shape) for stored in used)

    @property
    def n_bytes(self) -> int:
        """Of the weight files."""
        return sum(file.stat().st_size for file in self.files)

    def check_unchanged(self) -> None:
        """Refuse to go on if config or weights are no more what was read; `ReadFiles` has the rule.

        Raises:
            CheckpointError: one of them is not.
        """
        self._read.check()

    def get(self, name: str) -> Tensor:
        """One tensor, in memory of its own; matrices as `matrices` has them.

        Raises:
            CheckpointError: its file was cut, or it is of a type that is not read.
        """
        tensor = self.tensors[name].read()
        is_flipped = (
            not self.is_lerobot and name in self._linear and self._linear[name].is_transposed
        )
        return tensor.t().contiguous() if is_flipped else tensor

    def where(self, name: str) -> str:
        """File and name of a tensor, for errors."""
        return f"{self.tensors[name].file}: {name}"

    @cached_property  # gigabytes are read once, however many ask
    def sha256(self) -> str:
        """Fingerprint of the weights: of the file, or of its shards' fingerprints."""
        digests = [self._read.sha256(file) for file in self.files]
        if len(digests) == 1:
            return digests[0]
        return hashlib.sha256("".join(digests).encode()).hexdigest()

    def _add(self, file: TensorFile) -> None:
        for name, stored in file.tensors.items():
            if name in self.tensors:
                raise CheckpointError(
                    f"{self.tensors[name].file} and {file.path} both hold {name}: one of them is "
                    f"left over from another save. {AGAIN}"
                )
            self.tensors[name] = stored

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
        try:
            names = [entry.name for entry in found.iterdir() if entry.is_dir()]
        except OSError:  # nobody may look there
            return None
        close = get_close_matches(part, names, n=1)
        if not close:
            return None
        found /= close[0]
    return found


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a policy folder, as plain data.

    Raises:
        CheckpointError: the folder, its config.json or its weights are missing or unreadable, or
            config.json names other weights.
    """
    if not folder.exists():
        raise CheckpointError(f"the policy folder {folder} does not exist.")
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is a file; a policy is a folder with a {CONFIG}.")
    check_no_adapter(folder)
    has_weights = (folder / WEIGHTS).is_file() or (folder / INDEX).is_file()
    for name, is_there in ((CONFIG, (folder / CONFIG).is_file()), (WEIGHTS, has_weights)):
        if not is_there:
            if (folder / name).exists() or (folder / name).is_symlink():
                check_file(folder / name)
            found = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
            fix = "" if name == CONFIG else " save_pretrained writes it; other kinds are not read."
            raise CheckpointError(
                f"{folder} is not a policy: no {name} in it (found: {found}).{fix}"
            )
    config = read_object(folder / CONFIG, AGAIN)
    policy_type(folder, config)
    if (other := config.get("transformers_weights")) is not None:
        raise CheckpointError(
            f"{folder / CONFIG} names weights of its own (transformers_weights: {other!r:.99}), "
            f"which Transformers would read in the place of {WEIGHTS}. Take that line out."
        )
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
    files = [folder / name for name in sorted(set(_weight_map(folder).values()))]
    if missing := [file.name for file in files if not file.is_file()]:
        raise CheckpointError(
            f"{folder} lacks {', '.join(missing)} of its {len(files)} shards; fetch it again."
        )
    return files


def _weight_map(folder: Path) -> dict[str, str]:
    """Which shard holds which tensor, by the index of a folder."""
    path = folder / INDEX
    content = read_object(path, AGAIN)
    if "weight_map" not in content:
        raise CheckpointError(f"{path} has no weight_map.")
    shards = as_record(content["weight_map"], dict[str, str], f"{path}: its weight_map", AGAIN)
    for shard in set(shards.values()):
        if "/" in shard or not is_inside(shard):
            raise CheckpointError(
                f"{path} names the shard {cut(shard)!r}, which is not in the folder."
            )
    return shards
