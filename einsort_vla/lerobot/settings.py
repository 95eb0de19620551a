"""LeRobot's config of a policy, and its module without weights: made of a checked config.json."""

import importlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from einsort_vla.checkpoint import check_asked
from einsort_vla.checkpoint.source import CONFIG
from einsort_vla.checkpoint.tokenizer import check_tokenizer_folder
from einsort_vla.errors import (
    CheckpointError,
    EinSortError,
    MissingDependency,
    ShapeError,
    cut,
    importing,
    panics_as_errors,
)
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
    with naming(folder):
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
    check_tokenizer_folder(backbone.parent)


@contextmanager
def naming(folder: Path) -> Iterator[None]:
    """Around what names only a part of a folder in its errors."""
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
    kind = known_type(folder, config)
    fields = {key: value for key, value in config.items() if key != "type"}
    fields |= settings_in(folder, kind)
    if "compile_model" in fields:  # takes minutes, and is for training
        fields["compile_model"] = False
    if device is not None:
        fields["device"] = device
    with usable(folder):
        return draccus.decode(configs.PreTrainedConfig.get_choice_class(kind), fields)


def known_type(folder: Path, config: Mapping[str, Any]) -> str:
    """The type of a policy, which LeRobot knows; see `settings_of`."""
    _, configs, _ = import_lerobot()
    kind = str(config.get("type"))
    if kind.startswith(TYPE_PREFIX):
        importlib.import_module("lerobot.utils.import_utils").register_third_party_plugins()
    known = configs.PreTrainedConfig.get_known_choices()
    if kind in known:
        return kind
    if kind.startswith(TYPE_PREFIX) and family_or_plain(kind).name in known:
        raise MissingDependency(
            f"policies of type {kind!r} are loaded by this project's plug-in for LeRobot. "
            "Install it with: pip install lerobot_policy_einsort"
        )
    raise CheckpointError(
        f"{folder} holds a policy of type {kind!r}, which LeRobot does not know. "
        f"Known: {', '.join(sorted(known))}."
    )


def settings_in(folder: Path, kind: str) -> dict[str, Any]:
    """The fields that a policy's config has because its weights come from a folder."""
    family = family_or_plain(kind)
    coded = family.settings_coded if kind.startswith(TYPE_PREFIX) else {}
    return {**family.settings_in(folder), **coded, "pretrained_path": str(folder)}


@contextmanager
def usable(folder: Path, what: str = "its config.json") -> Iterator[None]:
    """Around what LeRobot, Transformers and torch do with a part of a folder.

    Raises:
        CheckpointError: in place of whatever they raise.
    """
    try:
        with panics_as_errors():
            yield
    except EinSortError as error:
        if str(folder) in str(error):
            raise
        raise type(error)(f"{folder}: {error}") from error
    except Exception as error:
        cause = _first_cause(error)
        if isinstance(cause, EinSortError):
            raise CheckpointError(f"{folder}: {cause}") from error
        said = f"{type(cause).__name__}: {cause}"
        if "custom code" in said:  # Transformers tells how to run it all the same
            said = "it asks for code that lies beside it, which is not run"
        raise CheckpointError(f"{folder}: {what} cannot be used: {cut(said)}") from error


def _first_cause(error: BaseException) -> BaseException:
    """What other libraries have wrapped in errors of their own."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
        if isinstance(error, EinSortError):
            break
    return error


@contextmanager
def fitting(folder: Path) -> Iterator[None]:
    """Around the loading of a folder's weights into the policy that its config.json describes.

    Raises:
        CheckpointError: they are those of another policy.
    """
    try:
        yield
    except (CheckpointError, ShapeError) as error:
        raise CheckpointError(f"{folder} does not fit its config.json: {error}") from error


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
