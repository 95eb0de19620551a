"""Strict loading of dense and compressed LeRobot policy folders."""

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from einsort_vla.checkpoint import DenseFolder, is_compressed, read_config
from einsort_vla.checkpoint.source import fetch_from_hub
from einsort_vla.errors import CheckpointError, MissingDependency, importing
from einsort_vla.families import BACKBONE_FOLDER, FAMILIES, Family
from einsort_vla.lerobot.policy import LoadedPolicy

_PREPROCESSOR = "policy_preprocessor.json"


def load_policy(path_or_hub_id: str, device: str = "cpu", backend: str = "decoded") -> LoadedPolicy:
    """A policy, dense or compressed, from a folder or hub id; in float32, strictly loaded.

    Args:
        path_or_hub_id: a LeRobot checkpoint folder, or one that `einsort-vla compress` wrote.
        device: a torch device.
        backend: how coded weights are multiplied; a dense policy does not use it.

    Raises:
        CheckpointError: the folder is missing, incomplete, damaged, or of an unknown type; or the
            policy does not answer one look with one chunk of actions.
        MissingDependency: lerobot is not installed.
    """
    folder = resolve_folder(path_or_hub_id)
    config = read_config(folder)
    if not (folder / _PREPROCESSOR).is_file():
        raise CheckpointError(f"{folder} has no {_PREPROCESSOR}: its normalization is unknown.")
    with quiet_lerobot():
        if is_compressed(config):
            module = _load_compressed(folder, device, backend)
        else:
            module = _build(config, folder, device).float()
            _load_dense(module, DenseFolder(folder))
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
    return fetch_from_hub(path_or_hub_id)


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


def _build(config: dict[str, Any], folder: Path, device: str) -> Any:
    """The policy module that `config` describes, with weights not loaded yet."""
    draccus, configs, factory = _import_lerobot()
    known = configs.PreTrainedConfig.get_known_choices()
    kind = str(config.get("type"))
    if kind not in known:
        raise CheckpointError(
            f"{folder} holds a policy of type {kind!r}, which LeRobot does not know. "
            f"Known: {', '.join(sorted(known))}."
        )
    fields = {key: value for key, value in config.items() if key != "type"}
    fields |= {"device": device} | _family(kind).settings_in(folder)
    try:
        settings = draccus.decode(known[kind], fields)
        return factory.get_policy_class(kind)(settings)
    except Exception as error:
        raise CheckpointError(f"{folder}: its config.json cannot be used: {error}") from error


def _family(kind: str) -> Family:
    """What is known of a dense policy; those that are not compressed run all the same."""
    return FAMILIES.get(kind, Family(kind))


def _load_compressed(folder: Path, device: str, backend: str) -> Any:
    """A compressed policy, by way of our LeRobot plug-in."""
    _, configs, factory = _import_lerobot()
    from lerobot.utils.import_utils import register_third_party_plugins

    register_third_party_plugins()
    kind = read_config(folder)["type"]
    if kind not in configs.PreTrainedConfig.get_known_choices():
        raise MissingDependency(
            f"{folder} is of type {kind!r}, which LeRobot's plug-in of this project brings. "
            "Install it with: pip install lerobot_policy_einsort"
        )
    config = configs.PreTrainedConfig.from_pretrained(
        str(folder), cli_overrides=[f"--device={device}"]
    )
    return factory.get_policy_class(config.type).from_pretrained(
        folder, config=config, backend=backend
    )


def _load_dense(module: Any, dense: DenseFolder) -> None:
    """Load the weight files; every tensor must be there, none may be left over."""
    try:
        state = {name: dense.get(name) for name in dense.tensors}
        state = _family(module.config.type).in_policy(module, state)
        missing, extra = module.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise CheckpointError(f"{dense.folder} does not fit its config.json: {error}") from error
    own = module.state_dict()
    stored = {own[name].data_ptr() for name in state.keys() & own.keys()}
    missing = [name for name in missing if own[name].data_ptr() not in stored]  # but for tied ones
    if missing or extra:
        raise CheckpointError(
            f"{dense.folder} does not fit its config.json: missing {missing[:5]}, "
            f"left over {extra[:5]}."
        )


def _wrap(module: Any, folder: Path) -> LoadedPolicy:
    """Join a loaded module with the processors saved in its folder."""
    from lerobot.policies.factory import make_pre_post_processors

    if not hasattr(module.config, "chunk_size"):
        raise CheckpointError(
            f"{folder}: policies of type {module.config.type!r} do not answer one look with one "
            "chunk of actions (their config has no chunk_size). Use LeRobot's own loader."
        )
    overrides: dict[str, Any] = {"device_processor": {"device": module.config.device}}
    if (folder / BACKBONE_FOLDER).is_dir() and not is_compressed(read_config(folder)):
        overrides["tokenizer_processor"] = {"tokenizer_name": str(folder / BACKBONE_FOLDER)}
    preprocess, postprocess = make_pre_post_processors(
        module.config, pretrained_path=str(folder), preprocessor_overrides=overrides
    )
    return LoadedPolicy(module, preprocess, postprocess)


def _import_lerobot() -> tuple[Any, Any, Any]:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    install = "Install it with: pip install 'einsort-vla[lerobot]'"
    with importing("lerobot cannot be imported", install):
        import draccus
        import lerobot.configs as configs
        import lerobot.policies.factory as factory
    return draccus, configs, factory
