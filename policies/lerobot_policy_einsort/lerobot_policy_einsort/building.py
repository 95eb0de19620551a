"""Building a policy whose weights are to follow: no weights of a base model are fetched or made.

Some LeRobot policies load their base model from the hub whenever they are built, a fine-tuned
checkpoint or not (vla_jepa, groot, eo1). The checkpoint holds all of these weights; what is still
read by name are configurations, tokenizers and processors.
"""

import importlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from transformers import PreTrainedModel

from einsort_vla.layers import without_weights

BACKBONE_FOLDER = "vlm"  # a backbone's config and tokenizer that travel with the weights
_NO_WEIGHTS = ["*.json", "*.txt", "*.model"]


def prepare(config: Any, folder: Path) -> None:
    """Point a config at its checkpoint, and leave out what only training needs."""
    config.pretrained_path = folder
    if (folder / BACKBONE_FOLDER).is_dir():
        config.vlm_model_name = str(folder / BACKBONE_FOLDER)
    if hasattr(config, "load_vlm_weights"):
        config.load_vlm_weights = False
    if hasattr(config, "enable_world_model"):
        config.enable_world_model = False


@contextmanager
def without_base_models(config: Any) -> Iterator[None]:
    """While this is open, new parameters are on the meta device and stay without values."""
    with ExitStack() as stack:
        stack.enter_context(without_weights())
        from_config = classmethod(_from_config)
        stack.enter_context(mock.patch.object(PreTrainedModel, "from_pretrained", from_config))
        if config.type.endswith("groot"):
            module = importlib.import_module("lerobot.policies.groot.groot_n1_7")
            fetch = module.snapshot_download
            stack.enter_context(
                mock.patch.object(
                    module,
                    "snapshot_download",
                    lambda *a, **kw: fetch(*a, **kw, allow_patterns=_NO_WEIGHTS),
                )
            )
        yield


def _from_config(cls: Any, name: str | Path, **kwargs: Any) -> Any:
    """Instead of `PreTrainedModel.from_pretrained`: the model that the config describes."""
    dtype = kwargs.pop("torch_dtype", kwargs.pop("dtype", None))
    config = cls.config_class.from_pretrained(name)
    own = {key: value for key, value in kwargs.items() if not hasattr(config, key)}
    for key in kwargs.keys() - own.keys():
        setattr(config, key, kwargs[key])
    return cls._from_config(config, **({"dtype": dtype} if dtype else {}), **own)
