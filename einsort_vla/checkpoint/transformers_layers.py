"""Which weights of a Transformers model are linear layers; needs the class, not the weights."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from einsort_vla.errors import CheckpointError, importing
from einsort_vla.families import NOT_LINEAR


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


def linear_layers(model: Any, skip: Sequence[str] | None = None) -> dict[str, nn.Linear]:
    """Path to module of the linear layers of a Transformers model that are compressed.

    Args:
        model: a `PreTrainedModel`, on any device.
        skip: modules left dense; by default the head over the vocabulary, as in Transformers.
    """
    from transformers.quantizers.base import HfQuantizer
    from transformers.quantizers.quantizers_utils import should_convert_module

    chosen = None if skip is None else list(skip)
    kept = HfQuantizer.get_modules_to_not_convert(model, chosen, model._keep_in_fp32_modules)
    return {
        path: module
        for path, module in model.named_modules()
        if type(module) is nn.Linear and should_convert_module(path, kept)
    }


def linear_weights(folder: Path, stored: Collection[str]) -> dict[str, str]:
    """The stored names that are weights of compressed layers, with their names in the model.

    Args:
        folder: of a Transformers model.
        stored: the names in its weight files, which may differ from those in the model.

    Raises:
        CheckpointError: its class is not one of the installed Transformers.
        MissingDependency: transformers is not installed.
    """
    model = _skeleton(folder)
    weights = {f"{path}.weight" for path in linear_layers(model)}
    return {
        name: in_model for name, in_model in _names_in_model(model, stored) if in_model in weights
    }


def _skeleton(folder: Path) -> Any:
    """The model without weights."""
    install = "Install it with: pip install 'einsort-vla[transformers]'"
    with importing("transformers cannot be imported", install):
        import transformers
    try:
        config = transformers.AutoConfig.from_pretrained(folder)
        (architecture,) = config.architectures or ["AutoModel"]
        with torch.device("meta"):
            return getattr(transformers, architecture)(config)
    except Exception as error:  # whatever an unknown or damaged config raises
        raise CheckpointError(
            f"{folder} holds no model that the installed Transformers "
            f"{transformers.__version__} can build: {error}"
        ) from error


def _names_in_model(model: Any, stored: Collection[str]) -> list[tuple[str, str]]:
    """Stored names with those that Transformers' loader would give them."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, rename_source_key

    conversions = get_model_conversion_mapping(model)
    converters = [c for c in conversions if isinstance(c, WeightConverter)]
    renamings = [c for c in conversions if not isinstance(c, WeightConverter)]
    own, found = model.state_dict(), []
    for name in stored:
        key, merged = rename_source_key(name, renamings, converters, model.base_model_prefix, own)
        if key not in own and name in own:
            key, merged = name, None
        if merged is None:  # what the loader merges or splits has no one matrix in the file
            found.append((name, key))
    return found
