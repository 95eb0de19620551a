"""Strict loading of dense and compressed LeRobot policy folders."""

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from einsort_vla.checkpoint import DenseFolder, is_compressed, read_config
from einsort_vla.checkpoint.processors import PREPROCESSOR
from einsort_vla.checkpoint.source import fetch_from_hub
from einsort_vla.errors import CheckpointError
from einsort_vla.families import without_foreign_code
from einsort_vla.layers import Budget, load_dense_
from einsort_vla.lerobot.normalization import check_step
from einsort_vla.lerobot.policy import LoadedPolicy
from einsort_vla.lerobot.processors import Processors, read_processors
from einsort_vla.lerobot.settings import (
    building,
    family_or_plain,
    fitting,
    import_lerobot,
    known_type,
    settings_of,
    usable,
)


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
    processors = read_processors(folder, config, is_dense=not is_compressed(config))
    with quiet_lerobot():
        if is_compressed(config):
            module = _load_compressed(folder, config, device, backend)
        else:
            module = _load_dense(DenseFolder(folder), device)
        return _wrap(module.to(device).eval(), processors)


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


def build_dense(dense: DenseFolder, device: str = "cpu") -> Any:
    """The policy module that a dense folder describes, its parameters on the meta device.

    Raises:
        CheckpointError: its config.json is damaged, or describes more than the weight files hold.
        MissingDependency: lerobot is not installed.
    """
    settings = settings_of(dense.folder, dense.config, device)
    _, _, factory = import_lerobot()
    sizes = [math.prod(stored.shape) for stored in dense.tensors.values()]
    budget = Budget.for_file(sum(sizes), len(sizes))
    with building(dense.folder, family_or_plain(settings.type), budget):
        return factory.get_policy_class(settings.type)(settings)


def _load_compressed(folder: Path, config: Mapping[str, Any], device: str, backend: str) -> Any:
    """A compressed policy, by way of our LeRobot plug-in."""
    kind = known_type(folder, config)
    _, _, factory = import_lerobot()
    return factory.get_policy_class(kind).from_pretrained(folder, device=device, backend=backend)


def _load_dense(dense: DenseFolder, device: str) -> Any:
    """Load the weight files; every tensor must be there, none may be left over."""
    module = build_dense(dense, device).float()
    with usable(dense.folder):
        state = {name: dense.get(name) for name in dense.tensors}
        state = family_or_plain(module.config.type).in_policy(module, state)
    with fitting(dense.folder):
        load_dense_(module, state)
    return module


def _wrap(module: Any, processors: Processors) -> LoadedPolicy:
    """Join a loaded module with the processors saved in its folder."""
    _, _, factory = import_lerobot()
    folder = processors.folder
    if not hasattr(module.config, "chunk_size"):
        raise CheckpointError(
            f"{folder}: policies of type {module.config.type!r} do not answer one look with one "
            "chunk of actions (their config has no chunk_size). Use LeRobot's own loader."
        )
    if not module.config.action_feature:
        raise CheckpointError(
            f"{folder}: its config.json names no action (output_features), so nobody can say how "
            "many numbers an action has. Write it in."
        )
    steps = {step.registry_name for step in processors.pipelines[PREPROCESSOR].steps}
    overrides = {"device_processor": {"device": module.config.device}}
    overrides = {name: own for name, own in overrides.items() if name in steps}
    with usable(folder, "its processors"), without_foreign_code(), processors.copied() as copy:
        preprocess, postprocess = factory.make_pre_post_processors(
            module.config, pretrained_path=str(copy), preprocessor_overrides=overrides
        )
    for step in (*preprocess.steps, *postprocess.steps):
        check_step(folder, step)
        _check_switches(folder, step)
    return LoadedPolicy(module, preprocess, postprocess, folder)


def _check_switches(folder: Path, step: Any) -> None:
    """Refuse what is neither true nor false where LeRobot would take it for one of them."""
    for field in fields(step) if is_dataclass(step) else ():
        value = getattr(step, field.name)
        if field.type in (bool, "bool") and not isinstance(value, bool):
            raise CheckpointError(
                f"{folder}: {field.name} of the processors' {type(step).__name__} is {value!r}; "
                "write true or false."
            )
