"""LeRobot's config of a policy, and its module without weights: made of a checked config.json."""

import importlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from einsort_vla.checkpoint.source import CONFIG
from einsort_vla.errors import CheckpointError, EinSortError, MissingDependency, importing
from einsort_vla.families import (
    BACKBONE_FOLDER,
    FAMILIES,
    TYPE_PREFIX,
    Family,
    input_features,
    output_features,
    pictures_of,
    without_base_models,
    without_foreign_code,
)
from einsort_vla.layers import Budget, without_weights
from einsort_vla.lerobot.limits import check_asked
from einsort_vla.reading import read_json


def import_lerobot() -> tuple[Any, Any, Any]:
    """The modules `draccus`, `lerobot.configs` and `lerobot.policies.factory`.

    Raises:
        MissingDependency: one is not installed.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    install = "Install it with: pip install 'einsort-vla[lerobot]'"
    with importing("lerobot cannot be imported", install):
        names = ("draccus", "lerobot.configs", "lerobot.policies.factory")
        draccus, configs, factory = map(importlib.import_module, names)
    return draccus, configs, factory


def family_or_plain(kind: str) -> Family:
    """What is known of a type, dense or compressed; one that is no family runs all the same."""
    name = kind.removeprefix(TYPE_PREFIX)
    return FAMILIES.get(name, Family(name))


def check_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse a policy whose config.json, or that of its backbone, asks for what no policy needs.

    Raises:
        CheckpointError: see `check_asked`; features are no such, or a second checkpoint is to be
            loaded over this one.
    """
    check_asked(config, str(folder / CONFIG))
    with _naming(folder):
        pictures_of(config)
        input_features(config)
        output_features(config)
    if config.get("use_peft"):
        raise CheckpointError(
            f"{folder} says use_peft: LeRobot would load another policy, which the adapter names. "
            "Merge the adapter into its policy first."
        )
    backbone = folder / BACKBONE_FOLDER / CONFIG
    if backbone.is_file():
        check_asked(read_json(backbone, dict[str, Any]), str(backbone))


@contextmanager
def _naming(folder: Path) -> Iterator[None]:
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from error


def settings_of(folder: Path, config: Mapping[str, Any], device: str | None) -> Any:
    """LeRobot's config of a policy, for the weights in its folder.

    Args:
        folder: of the policy.
        config: its config.json.
        device: None is the one that it names.

    Raises:
        CheckpointError: LeRobot does not know the type, or cannot use the config.
        MissingDependency: lerobot, or the plug-in for a compressed policy, is not installed.
    """
    check_config(folder, config)
    draccus, configs, _ = import_lerobot()
    kind = str(config.get("type"))
    known = _known_types(configs, kind)
    if kind not in known:
        raise CheckpointError(
            f"{folder} holds a policy of type {kind!r}, which LeRobot does not know. "
            f"Known: {', '.join(sorted(known))}."
        )
    fields = {key: value for key, value in config.items() if key != "type"}
    fields |= settings_in(folder, kind)
    if device is not None:
        fields["device"] = device
    with usable(folder):
        return draccus.decode(known[kind], fields)


def settings_in(folder: Path, kind: str) -> dict[str, Any]:
    """The fields that a policy's config has because its weights come from a folder."""
    family = family_or_plain(kind)
    coded = family.settings_coded if kind.startswith(TYPE_PREFIX) else {}
    return {**family.settings_in(folder), **coded, "pretrained_path": str(folder)}


def _known_types(configs: Any, kind: str) -> Mapping[str, Any]:
    if kind.startswith(TYPE_PREFIX):
        from lerobot.utils.import_utils import register_third_party_plugins

        register_third_party_plugins()
    known = configs.PreTrainedConfig.get_known_choices()
    if kind.startswith(TYPE_PREFIX) and kind not in known and family_or_plain(kind).name in known:
        raise MissingDependency(
            f"policies of type {kind!r} are loaded by this project's plug-in for LeRobot. "
            "Install it with: pip install lerobot_policy_einsort"
        )
    return known


@contextmanager
def usable(folder: Path, what: str = "its config.json") -> Iterator[None]:
    """Around what LeRobot, Transformers and torch do with a part of a folder.

    Raises:
        CheckpointError: in place of whatever they raise.
    """
    try:
        yield
    except EinSortError as error:
        if str(folder) in str(error):
            raise
        raise type(error)(f"{folder}: {error}") from error
    except Exception as error:
        if own := _own_error(error):
            raise CheckpointError(f"{folder}: {own}") from error
        said = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"{folder}: {what} cannot be used: {said}") from error


def _own_error(error: BaseException) -> EinSortError | None:
    """An error of ours that another library has wrapped."""
    cause = error.__cause__ or error.__context__
    if cause is None or isinstance(cause, EinSortError):
        return cause
    return _own_error(cause)


@contextmanager
def building(folder: Path, family: Family, budget: Budget) -> Iterator[None]:
    """While this is open, a policy is built without weights, base models and foreign code.

    Raises:
        CheckpointError: it cannot be built, or is larger than its budget.
    """
    with (
        usable(folder), without_foreign_code(), without_base_models(family),
        without_weights(budget),
    ):  # fmt: skip
        yield
