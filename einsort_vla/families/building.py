"""Building a policy whose weights are to follow: no weights of a base model are fetched or made.

Some LeRobot policies load their base model from the hub whenever they are built, a fine-tuned
checkpoint or not (vla_jepa, groot, eo1). The checkpoint holds all of these weights; what is still
read by name are configurations, tokenizers and processors.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from einsort_vla.families.family import Family


@contextmanager
def without_base_models(family: Family) -> Iterator[None]:
    """While this is open, base models are made of their configurations."""
    from transformers import PreTrainedModel

    from_config = classmethod(_from_config)
    with mock.patch.object(PreTrainedModel, "from_pretrained", from_config), family.offline():
        yield


def _from_config(cls: Any, name: str | Path, **kwargs: Any) -> Any:
    """Instead of `PreTrainedModel.from_pretrained`: the model that the config describes."""
    dtype = kwargs.pop("torch_dtype", kwargs.pop("dtype", None))
    config = cls.config_class.from_pretrained(name)
    own = {key: value for key, value in kwargs.items() if not hasattr(config, key)}
    for key in kwargs.keys() - own.keys():
        setattr(config, key, kwargs[key])
    return cls._from_config(config, **({"dtype": dtype} if dtype else {}), **own)
