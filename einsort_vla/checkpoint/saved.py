"""A coded model as Transformers' `save_pretrained` wrote it: no manifest, any number of shards.

Its plan is in config.json, by the names in the model; the names in its files may be others.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from einsort_vla.checkpoint.file import FORMAT, Checkpoint, layout, take
from einsort_vla.checkpoint.source import (
    QUANTIZATION,
    StoredTensor,
    open_weights,
    read_header,
    weight_files,
)
from einsort_vla.checkpoint.transformers_layers import names_in_model, skeleton
from einsort_vla.checkpoint.writer import NAMES
from einsort_vla.errors import CheckpointError
from einsort_vla.plan import Plan


def was_saved(folder: Path) -> bool:
    """Whether Transformers wrote the weights of a compressed folder, not `compress`."""
    with open_weights(weight_files(folder)[0]) as file:
        return (file.metadata() or {}).get("format") != FORMAT


def read_saved(folder: Path, config: Mapping[str, Any]) -> Checkpoint:
    """The compressed weights; structure, types and finite numbers are checked.

    Args:
        folder: that `save_pretrained` wrote.
        config: its config.json.

    Raises:
        CheckpointError: the plan is no plan, a file is damaged, or a part is missing or has another
            size or type than the plan says.
    """
    method = config[QUANTIZATION]
    if not isinstance(method.get("plan"), Mapping):
        raise CheckpointError(f"{folder / 'config.json'} has no plan in its {QUANTIZATION}.")
    plan = Plan.from_dict(method["plan"])
    files = weight_files(folder)
    stored = [name for file in files for name, _ in read_header(file)]
    names = dict(zip(stored, stored, strict=True))
    if missing := layout(plan, {}).keys() - names.keys():  # the files have names of their own
        model = skeleton(folder, config, len(stored))
        names |= {
            n: own for n, own in names_in_model(model, stored, layout(plan, {})) if own in missing
        }
    tensors = {}
    for path in files:
        with open_weights(path) as file:
            tensors |= {names[name]: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    coded = {
        name: take(folder, tensors, name, planned.spec, planned.shape)
        for name, planned in plan.tensors.items()
    }
    return Checkpoint(plan, coded, tensors, has_fingerprints=False)


def check_parts(files: Sequence[Path], plan: Plan, model: Any) -> None:
    """Hold what weight files say of themselves against a plan, before a tensor is read.

    Args:
        files: all weight files of the model.
        plan: by the names in the model.
        model: of Transformers, whose coded layers stand in their places.

    Raises:
        CheckpointError: a part is missing, or has another size or type than the plan says.
    """
    stored: dict[str, StoredTensor] = {
        name: own for file in files for name, own in read_header(file)
    }
    found = {own: stored[name] for name, own in names_in_model(model, stored)}
    for name, (dtype, shape) in layout(plan, {}).items():
        if name not in found:
            raise CheckpointError(
                f"{files[0].parent} lacks the tensor {name}, which its plan promises."
            )
        own = found[name]
        if (own.dtype, own.shape) != (NAMES[dtype], shape):
            raise CheckpointError(
                f"{own.file}: {name} is {own.dtype} of shape {own.shape}; the plan says "
                f"{NAMES[dtype]} of shape {shape}."
            )
