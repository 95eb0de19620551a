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

from einsort_vla.errors import CheckpointError
from einsort_vla.families.family import Family

CODE_OF_LEROBOT = frozenset(
    {"lerobot/fast-action-tokenizer", "physical-intelligence/fast", "nvidia/Cosmos-Reason2-2B"}
)
"""Repositories on the hub that LeRobot itself names, and whose code it asks Transformers to run.

pi0_fast cannot act without the code of its action tokenizer. A name that is not among these runs
nothing, whatever a checkpoint says.
"""


@contextmanager
def without_base_models(family: Family) -> Iterator[None]:
    """While this is open, base models are made of their configurations."""
    from transformers import PreTrainedModel

    from_config = classmethod(_from_config)
    with mock.patch.object(PreTrainedModel, "from_pretrained", from_config), family.offline():
        yield


@contextmanager
def without_foreign_code() -> Iterator[None]:
    """While this is open, Transformers runs no code that lies beside a model, and asks nobody.

    LeRobot passes `trust_remote_code=True` for several of its policies, with names that a
    checkpoint chooses. And with the package kernels installed, Transformers fetches kernels from
    the hub that a config.json names as its attention, in several ways.

    Raises:
        CheckpointError: something asks for such code, but for `CODE_OF_LEROBOT`.
    """
    from transformers import dynamic_module_utils as modules
    from transformers.integrations import hub_kernels

    load = modules.get_cached_module_file

    def refuse(name: Any, file: str, *args: Any, **kwargs: Any) -> str:
        if str(name) in CODE_OF_LEROBOT and not Path(name).exists():
            return load(name, file, *args, **kwargs)
        raise CheckpointError(f"{name} brings code of its own ({file}), which is not run.")

    def refuse_kernel(name: Any, *args: Any, **kwargs: Any) -> None:
        raise CheckpointError(
            f"a config.json asks for the attention of {name} on the hub, which is not run. Set its "
            "attn_implementation to eager, or take it out."
        )

    with (
        mock.patch.object(modules, "get_cached_module_file", refuse),
        mock.patch.object(hub_kernels, "get_kernel", refuse_kernel),
        mock.patch.object(modules, "TIME_OUT_REMOTE_CODE", 0),
    ):
        yield


def _from_config(cls: Any, name: str | Path, **kwargs: Any) -> Any:
    """Instead of `PreTrainedModel.from_pretrained`: the model that the config describes."""
    dtype = kwargs.pop("torch_dtype", kwargs.pop("dtype", None))
    config = cls.config_class.from_pretrained(name)
    own = {key: value for key, value in kwargs.items() if not hasattr(config, key)}
    for key in kwargs.keys() - own.keys():
        setattr(config, key, kwargs[key])
    return cls._from_config(config, **({"dtype": dtype} if dtype else {}), **own)
