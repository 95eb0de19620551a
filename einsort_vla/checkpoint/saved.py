"""A coded model as Transformers' `save_pretrained` wrote it: no manifest, any number of shards.

Its plan is in config.json, by the names in the model; the names in its files may be others.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from einsort_vla.checkpoint.file import (
    FORMAT,
    Checkpoint,
    check_layout,
    layout,
    most_weights,
    no_nan,
    read_coded,
)
from einsort_vla.checkpoint.source import (
    QUANTIZATION,
    is_compressed,
    is_lerobot,
    read_config,
    weight_files,
)
from einsort_vla.checkpoint.transformers_layers import names_in_model, skeleton
from einsort_vla.errors import CheckpointError
from einsort_vla.plan import Plan
from einsort_vla.reading import AGAIN
from einsort_vla.tensors import DTYPES, StoredTensor, TensorFile, open_tensors


def was_saved(folder: Path) -> bool:
    """Whether it is a coded model that Transformers wrote, not `compress`.

    Raises:
        CheckpointError: it is no model at all.
    """
    config = read_config(folder)
    if is_lerobot(config) or not is_compressed(config):
        return False
    return open_tensors(weight_files(folder)[0]).metadata.get("format") != FORMAT


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
    if "plan" not in method:
        raise CheckpointError(f"{folder / 'config.json'} has no plan in its {QUANTIZATION}.")
    files = weight_files(folder)
    source = f"{folder / 'config.json'}: the plan in it"
    plan, stored = Plan.from_dict(method["plan"], source, most_weights(*files)), _stored(files)
    names = {name: name for name in stored}
    if missing := layout(plan, {}).keys() - names.keys():  # the files have names of their own
        model = skeleton(folder, config, len(stored))
        renamed = names_in_model(model, stored, layout(plan, {}))
        names |= {name: own for name, own in renamed if own in missing}
    together = TensorFile(folder, {}, {names[name]: own for name, own in stored.items()}, 0)
    dense = check_layout(together, plan, ())
    return Checkpoint(
        plan,
        {name: read_coded(together, name, planned) for name, planned in plan.tensors.items()},
        {name: no_nan(f"{folder}: {name}", together.read(name)) for name in dense},
        source_sha256=None,
    )


def check_parts(files: Sequence[Path], plan: Plan, model: Any) -> None:
    """Hold what weight files say of themselves against a model, before a tensor is read.

    Args:
        files: all weight files of the model.
        plan: by the names in the model.
        model: of Transformers, whose coded layers stand in their places.

    Raises:
        CheckpointError: a file is damaged, or a part is missing, or has another size or type than
            the plan says; or so is a tensor that is not coded, which Transformers would draw at
            random.
    """
    stored, folder = _stored(files), files[0].parent
    found = {own: stored[name] for name, own in names_in_model(model, stored)}
    check_layout(TensorFile(folder, {}, found, 0), plan, ())
    is_its_own = type(model).__name__ in (model.config.architectures or ())
    if is_its_own and len(found) == len(stored):  # the loader merges none of them
        _check_rest(folder, found, model, layout(plan, {}).keys())


def _check_rest(
    folder: Path, found: Mapping[str, StoredTensor], model: Any, parts: Collection[str]
) -> None:
    """Refuse a model of the stored class whose uncoded tensors are not all there."""
    absent = model._keys_to_ignore_on_load_missing or ()
    for name, own in model.state_dict().items():
        if name in parts or name in model.all_tied_weights_keys:
            continue
        if name not in found:
            if any(re.search(pattern, name) for pattern in absent):
                continue
            raise CheckpointError(f"{folder} lacks {name}, which the model needs. {AGAIN}")
        stored = found[name]
        dtype = DTYPES.get(stored.dtype)
        is_type = dtype is not None and dtype.is_floating_point == own.is_floating_point()
        if not is_type or stored.shape != tuple(own.shape):
            raise CheckpointError(
                f"{folder}: {name} is {stored.dtype} of shape {stored.shape}; the model has "
                f"{own.dtype} of shape {tuple(own.shape)}. {AGAIN}"
            )


def _stored(files: Sequence[Path]) -> dict[str, StoredTensor]:
    return {name: own for file in files for name, own in open_tensors(file).tensors.items()}
