"""LeRobot policies behind the project's policy protocol: preprocess, predict, postprocess."""

import contextlib
import io
import logging
import os
import warnings
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_model

from einsort_vla.checkpoint import TYPE_PREFIX, WEIGHTS, read_config
from einsort_vla.errors import CheckpointError, MissingDependency, UsageError
from envs.protocol import look_seed
from policies.protocol import Observation

VLM_FOLDER = "vlm"  # tokenizer and configuration of the backbone, beside the weights
_PREPROCESSOR = "policy_preprocessor.json"


class LeRobotPolicy:
    """One LeRobot policy with its saved processors, on CPU or GPU."""

    def __init__(self, module: Any, preprocess: Any, postprocess: Any) -> None:
        self.module, self._preprocess, self._postprocess = module, preprocess, postprocess
        self.chunk_size: int = module.config.chunk_size
        self.n_action_steps: int = module.config.n_action_steps
        self._queue: deque[np.ndarray] = deque()
        self._seed = self._n_chunks = 0

    @property
    def camera_keys(self) -> list[str]:
        """The picture keys this policy was trained with."""
        return list(self.module.config.image_features)

    @property
    def statistics(self) -> dict[str, dict[str, Any]]:
        """Mean and deviation of state and action that the saved preprocessor normalizes by."""
        from lerobot.processor import NormalizerProcessorStep

        steps = (s for s in self._preprocess.steps if isinstance(s, NormalizerProcessorStep))
        return next(steps).stats or {}

    def reset(self, seed: int) -> None:
        self.module.reset()
        self._queue.clear()
        self._seed, self._n_chunks = seed, 0

    def predict_action_chunk(self, observation: Observation) -> np.ndarray:
        """(chunk_size, action_dim) float32; the flow's noise depends on seed and chunk number only.

        Raises:
            UsageError: the observation lacks a camera the policy was trained with.
        """
        batch = self._preprocess(self._to_tensors(observation))
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            torch.manual_seed(look_seed(self._seed, self._n_chunks))
            chunk = self.module.predict_action_chunk(batch)
        self._n_chunks += 1
        return self._postprocess(chunk)[0].float().numpy()

    def select_action(self, observation: Observation) -> np.ndarray:
        if not self._queue:
            self._queue.extend(self.predict_action_chunk(observation)[: self.n_action_steps])
        return self._queue.popleft()

    def _to_tensors(self, observation: Observation) -> dict[str, Any]:
        if missing := [key for key in self.camera_keys if key not in observation]:
            have = ", ".join(k for k in observation if ".images." in k) or "none"
            raise UsageError(
                f"the policy needs the cameras {', '.join(missing)}; the environment has {have}."
            )
        tensors: dict[str, Any] = {"task": observation["task"]}
        for key, value in observation.items():
            if ".images." in key:
                tensors[key] = torch.from_numpy(value).permute(2, 0, 1).float() / 255
            elif key != "task":
                tensors[key] = torch.from_numpy(value)
        return tensors


def load(path_or_hub_id: str, device: str = "cpu", backend: str = "dense") -> LeRobotPolicy:
    """A policy, dense or compressed, from a folder or hub id; in float32, strictly loaded.

    Args:
        path_or_hub_id: a LeRobot checkpoint folder, or one that `einsort-vla compress` wrote.
        device: a torch device.
        backend: how coded weights are multiplied; a dense policy does not use it.

    Raises:
        CheckpointError: the folder is missing, incomplete, damaged, or of an unknown type.
        MissingDependency: lerobot is not installed.
    """
    folder = resolve_folder(path_or_hub_id)
    config = read_config(folder)
    is_compressed = config["type"].startswith(TYPE_PREFIX)
    weights = folder / WEIGHTS
    with quiet_lerobot():
        if is_compressed:
            module = _load_compressed(folder, device, backend)
        else:
            module = _build(config, folder, device).float()
            _load_dense(module, weights)
        return _wrap(module.to(device).eval(), folder)


def resolve_folder(path_or_hub_id: str) -> Path:
    """The local folder of a checkpoint; a hub id is fetched.

    Raises:
        CheckpointError: it is neither a folder here nor a model on the hub.
    """
    folder = Path(path_or_hub_id)
    looks_like_hub_id = path_or_hub_id.count("/") == 1 and path_or_hub_id[0] not in "./~"
    if folder.exists() or not looks_like_hub_id:
        return folder
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(path_or_hub_id))
    except Exception as error:
        raise CheckpointError(
            f"{path_or_hub_id!r} is neither a folder here nor a hub model that can be reached "
            f"({type(error).__name__})."
        ) from error


def _build(config: dict[str, Any], folder: Path, device: str) -> Any:
    """The policy module that `config` describes, with weights not loaded yet."""
    draccus, configs, factory = _import_lerobot()
    known = configs.PreTrainedConfig.get_known_choices()
    kind = config["type"]
    if kind not in known:
        raise CheckpointError(
            f"{folder} holds a policy of type {kind!r}, which LeRobot does not know. "
            f"Known: {', '.join(sorted(known))}."
        )
    fields = {key: value for key, value in config.items() if key != "type"}
    fields["device"] = device
    if (folder / VLM_FOLDER).is_dir():
        fields["vlm_model_name"] = str(folder / VLM_FOLDER)
    if "load_vlm_weights" in fields:
        fields["load_vlm_weights"] = False  # they are in the checkpoint itself
    try:
        settings = draccus.decode(known[kind], fields)
        return factory.get_policy_class(kind)(settings)
    except Exception as error:
        raise CheckpointError(f"{folder}: its config.json cannot be used: {error}") from error


def _load_compressed(folder: Path, device: str, backend: str) -> Any:
    """A compressed policy, by way of our LeRobot plug-in."""
    _import_lerobot()
    from lerobot.configs import PreTrainedConfig
    from lerobot.policies.factory import get_policy_class

    try:
        import lerobot_policy_einsort  # noqa: F401
    except ImportError as error:
        raise MissingDependency(
            f"the LeRobot plug-in cannot be imported ({error}). Install it with: "
            "pip install lerobot_policy_einsort"
        ) from error
    config = PreTrainedConfig.from_pretrained(str(folder), cli_overrides=[f"--device={device}"])
    return get_policy_class(config.type).from_pretrained(folder, config=config, backend=backend)


def _load_dense(module: torch.nn.Module, file: Path) -> None:
    """Load a safetensors file; every tensor must be there, none may be left over."""
    try:
        load_model(module, str(file), strict=True)
    except SafetensorError as error:
        raise CheckpointError(f"{file} is damaged or truncated: {error}") from error
    except RuntimeError as error:
        raise CheckpointError(f"{file} does not fit its config.json: {error}") from error


def _wrap(module: Any, folder: Path) -> LeRobotPolicy:
    """Join a loaded module with the processors saved in its folder."""
    _import_lerobot()
    from lerobot.policies.factory import make_pre_post_processors

    if not (folder / _PREPROCESSOR).is_file():
        raise CheckpointError(f"{folder} has no {_PREPROCESSOR}: its normalization is unknown.")
    overrides: dict[str, Any] = {"device_processor": {"device": module.config.device}}
    if (folder / VLM_FOLDER).is_dir() and not module.config.type.startswith(TYPE_PREFIX):
        overrides["tokenizer_processor"] = {"tokenizer_name": str(folder / VLM_FOLDER)}
    preprocess, postprocess = make_pre_post_processors(
        module.config, pretrained_path=str(folder), preprocessor_overrides=overrides
    )
    return LeRobotPolicy(module, preprocess, postprocess)


@contextlib.contextmanager
def quiet_lerobot() -> Iterator[None]:
    """Hold back the notices LeRobot and Transformers print while a policy is built."""
    root = logging.getLogger()
    level = root.level
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        root.setLevel(logging.ERROR)
        try:
            yield
        finally:
            root.setLevel(level)


def _import_lerobot() -> tuple[Any, Any, Any]:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        import draccus
        import lerobot.configs as configs
        import lerobot.policies.factory as factory
    except ImportError as error:
        raise MissingDependency(
            f"lerobot cannot be imported ({error}). Install it with: uv sync --extra lerobot"
        ) from error
    return draccus, configs, factory
