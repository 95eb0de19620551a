"""Which weights of a Transformers model are linear layers; needs the class, not the weights."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from einsort_vla.codec import Shape
from einsort_vla.errors import CheckpointError, cut, importing
from einsort_vla.families import NOT_LINEAR, without_foreign_code

# A stranger's config.json decides how much a class builds: of layers, experts, labels, ...
MAX_COUNT = 2**20
MAX_LABELS = 2**16  # a config makes several tables of them
_COUNTS = re.compile(r"(^|_)(n|num|depths?|layers?|blocks?|experts?)(_|$)")
PARTS_FOR_A_TENSOR = 16  # modules and parameters of a model for each tensor in its file
SMALLEST_LIMIT = 4096


@dataclass(frozen=True)
class LinearWeight:
    """The weight of a compressed layer of a Transformers model.

    Attributes:
        in_model: its name there.
        shape: (out_features, in_features).
        is_transposed: it is stored as (in_features, out_features), as GPT-2 does.
    """

    in_model: str
    shape: Shape
    is_transposed: bool


@dataclass(frozen=True)
class TransformersFamily:
    """A Transformers model in the place of a `Family`: its class says which weights are coded.

    Attributes:
        coded: stored names of the weights of compressed layers.
    """

    coded: Collection[str]

    def dense_reason(self, name: str, shape: tuple[int, ...]) -> str | None:
        """Why a tensor is not compressible; None if it is."""
        return None if name in self.coded else NOT_LINEAR

    def dropped_reasons(self, names: Collection[str]) -> dict[str, str]:
        """None: all tensors are stored."""
        return {}


def linear_layers(model: Any, skip: Sequence[str] | None = None) -> dict[str, nn.Module]:
    """Path to module of the linear layers of a Transformers model that are compressed.

    A weight that is tied to another, such as that of a head to the embeddings, stays dense.

    Args:
        model: a `PreTrainedModel`, on any device.
        skip: modules left dense; by default the head over the vocabulary, as in Transformers.
    """
    from transformers.quantizers.base import HfQuantizer
    from transformers.quantizers.quantizers_utils import should_convert_module

    chosen = None if skip is None else list(skip)
    kept = HfQuantizer.get_modules_to_not_convert(model, chosen, model._keep_in_fp32_modules)
    tied = {*model.all_tied_weights_keys, *model.all_tied_weights_keys.values()}
    return {
        path: module
        for path, module in model.named_modules()
        if linear_shape(module) is not None
        and f"{path}.weight" not in tied
        and should_convert_module(path, kept)
    }


def linear_shape(module: nn.Module) -> Shape | None:
    """(out_features, in_features) of a linear layer; None of any other module."""
    if type(module) is nn.Linear:
        return module.out_features, module.in_features
    return (module.nf, module.nx) if is_transposed(module) else None  # pyright: ignore


def is_transposed(module: nn.Module) -> bool:
    """Whether it is GPT-2's linear layer, whose weight is (in_features, out_features)."""
    from transformers.pytorch_utils import Conv1D

    return type(module) is Conv1D


def linear_weights(
    folder: Path, config: Mapping[str, Any], stored: Mapping[str, tuple[int, ...]]
) -> dict[str, LinearWeight]:
    """The stored names that are weights of compressed layers, with what they are in the model.

    Args:
        folder: of a Transformers model.
        config: its config.json.
        stored: name, which may differ from that in the model, to shape of all that is in its
            weight files.

    Raises:
        CheckpointError: its class is not one of the installed Transformers, it builds far more
            than the files hold, none of its linear layers is in them, or one has another shape.
        MissingDependency: transformers is not installed.
    """
    model = skeleton(folder, config, len(stored))
    layers = {f"{path}.weight": module for path, module in linear_layers(model).items()}
    found = {}
    for name, in_model in names_in_model(model, stored):
        if in_model in layers:
            found[name] = _weight(folder, name, stored[name], in_model, layers[in_model])
    if not found:
        raise CheckpointError(f"{folder} {_why_none(model, layers, stored)}")
    return found


def _weight(
    folder: Path, name: str, stored: tuple[int, ...], in_model: str, layer: nn.Module
) -> LinearWeight:
    shape, flipped = linear_shape(layer), is_transposed(layer)
    assert shape is not None
    expected = shape[::-1] if flipped else shape
    if stored != expected:
        raise CheckpointError(
            f"{folder}: {name} has shape {stored} in the weight file and {expected} by "
            "config.json; they belong to different models."
        )
    return LinearWeight(in_model, shape, flipped)


def _why_none(model: Any, layers: Collection[str], stored: Collection[str]) -> str:
    kind = type(model).__name__
    if layers:
        return (
            f"holds none of the {len(layers)} linear layers of {kind}, such as {min(layers)}; its "
            f"tensors are named like {min(stored, default='nothing')}. Save the model again with "
            "save_pretrained."
        )
    if any(linear_shape(module) is not None for module in model.modules()):
        return f"has nothing to code: the linear layers of {kind} are its head alone, kept dense."
    return f"has nothing to code: {kind} has no linear layer."


def model_class(folder: Path, config: Mapping[str, Any]) -> Any:
    """The class of the installed Transformers that a config.json names.

    Raises:
        CheckpointError: it does not name one model class.
        MissingDependency: transformers is not installed.
    """
    install = "Install it with: pip install 'einsort-vla[transformers]'"
    with importing("transformers cannot be imported", install):
        import transformers
    names = config.get("architectures")
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
        raise CheckpointError(
            f"{folder / 'config.json'} has the architectures {names!r}; it must name the one class "
            'that the weights are of, such as ["LlamaForCausalLM"].'
        )
    found = getattr(transformers, names[0], None)
    base = transformers.PreTrainedModel
    if not (isinstance(found, type) and issubclass(found, base) and found is not base):
        raise _cannot_build(folder, f"it has no model class {names[0]!r}")
    return found


def skeleton(folder: Path, config: Mapping[str, Any], n_stored: int) -> Any:
    """The model without weights; no code of the folder runs.

    Args:
        folder: of a Transformers model.
        config: its config.json.
        n_stored: tensors in its weight files, which bound what is built.

    Raises:
        CheckpointError: the installed Transformers has no such model, or it is far larger.
        MissingDependency: transformers is not installed.
    """
    kind = model_class(folder, config)
    from transformers import AutoConfig

    _check_counts(config, str(folder / "config.json"))
    limit = max(SMALLEST_LIMIT, PARTS_FOR_A_TENSOR * n_stored)
    try:
        with without_foreign_code():
            own = AutoConfig.from_pretrained(folder, trust_remote_code=False)
            with torch.device("meta"), _at_most(limit):
                return kind(own)
    except _TooMany as error:
        raise CheckpointError(
            f"{folder / 'config.json'} describes a model of more than {limit} parts, and the "
            f"weight files hold {n_stored} tensors: they belong to different models."
        ) from error
    except Exception as error:  # whatever an unknown or damaged config raises
        own_code = " Code that comes with a model is never run." if "auto_map" in config else ""
        raise _cannot_build(folder, f"{cut(' '.join(str(error).split()))}{own_code}") from error


def _cannot_build(folder: Path, why: str) -> CheckpointError:
    import transformers

    return CheckpointError(
        f"{folder} holds no model that the installed Transformers {transformers.__version__} "
        f"can build: {why}"
    )


def _check_counts(value: Any, place: str, is_count: bool = False) -> None:
    """Refuse counts that no model has, before a list of that length is made."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _check_counts(inner, f"{place}: {key}", bool(_COUNTS.search(str(key))))
    elif isinstance(value, list):
        for inner in value:
            _check_counts(inner, place, is_count)
    elif is_count and isinstance(value, int | float):
        most = MAX_LABELS if place.endswith("labels") else MAX_COUNT
        if not value <= most:
            raise CheckpointError(f"{place} is {value}; models have at most {most}.")


class _TooMany(Exception):
    """A model has more parts than its file explains."""


@contextmanager
def _at_most(limit: int) -> Iterator[None]:
    """Stop the building of a model that has more modules and parameters."""
    n_parts = 0

    def count(*_: Any) -> None:
        nonlocal n_parts
        n_parts += 1
        if n_parts > limit:
            raise _TooMany

    register: tuple[Callable[..., Any], ...] = (
        register_module_module_registration_hook,
        register_module_parameter_registration_hook,
    )
    handles = [each(count) for each in register]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def names_in_model(
    model: Any, stored: Collection[str], added: Collection[str] = ()
) -> list[tuple[str, str]]:
    """Stored names with those that Transformers' loader would give them.

    Args:
        model: a `PreTrainedModel`, on any device.
        stored: names in its weight files.
        added: names that the model will have beside its own, of the parts of coded weights.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, rename_source_key

    conversions = get_model_conversion_mapping(model)
    converters = [c for c in conversions if isinstance(c, WeightConverter)]
    renamings = [c for c in conversions if not isinstance(c, WeightConverter)]
    own, found = dict.fromkeys(added, True) | model.state_dict(), []
    for name in stored:
        key, merged = rename_source_key(name, renamings, converters, model.base_model_prefix, own)
        if key not in own and name in own:
            key, merged = name, None
        if merged is None:  # what the loader merges or splits has no one matrix in the file
            found.append((name, key))
    return found
