"""Writing a compressed policy that LeRobot has loaded: its coded weights as they are, and whatever
training has changed beside them.

LeRobot saves `config.json` and `model.safetensors`, and its processors by itself. A compressed
folder has a plan and a manifest, too, and what its backbone is built of.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import draccus
import torch
from lerobot.configs import PreTrainedConfig
from torch import Tensor

from einsort_vla.atomic import write_text
from einsort_vla.checkpoint import WEIGHTS, Checkpoint, manifest, write
from einsort_vla.checkpoint.side_files import SideFiles, side_files
from einsort_vla.checkpoint.source import CONFIG
from einsort_vla.codec import CompressedTensor
from einsort_vla.errors import CheckpointError
from einsort_vla.families import BACKBONE_FOLDER
from einsort_vla.layers import CompressedLinear
from einsort_vla.lerobot.settings import settings_in
from einsort_vla.plan import PlannedTensor


@dataclass(frozen=True)
class Origin:
    """What a loaded policy keeps of its folder, to be written again.

    Attributes:
        folder: it.
        config: its config.json.
        content: its weight file without tensors: plan, and what the file says of itself.
        planned: by the policy's names.
        types: of the dense tensors, by the policy's names.
    """

    folder: Path
    config: Mapping[str, Any]
    content: Checkpoint
    planned: Mapping[str, PlannedTensor]
    types: Mapping[str, torch.dtype]


def origin_of(
    folder: Path, config: Mapping[str, Any], stored: Checkpoint, content: Checkpoint
) -> Origin:
    """Of a file as it is stored, and with the policy's names."""
    plans = {id(own): stored.plan.tensors[name] for name, own in stored.coded.items()}
    planned = {name: plans[id(own)] for name, own in content.coded.items()}
    types = {name: tensor.dtype for name, tensor in content.dense.items()}
    return Origin(folder, config, replace(content, coded={}, dense={}), planned, types)


def save(policy: Any, origin: Origin, destination: Path, state: Mapping[str, Tensor]) -> None:
    """Write a folder that loads again.

    Args:
        policy: one that was loaded from a compressed folder.
        origin: that folder.
        destination: a folder that is there.
        state: all tensors of the policy.

    Raises:
        CheckpointError: the weights are there already, a coded layer of the policy was replaced, or
            a link leads out of the folder it was loaded from.
    """
    backbone, processors = _beside(origin.folder)
    coded = {name: _coded(policy, name, state) for name in origin.planned}
    dense = {name: _stored(state, name, dtype) for name, dtype in origin.types.items()}
    plan = replace(origin.content.plan, tensors=dict(origin.planned))
    write(destination / WEIGHTS, replace(origin.content, plan=plan, coded=coded, dense=dense))
    config = _config(policy.config, origin)
    write_text(destination / CONFIG, json.dumps(config, indent=4) + "\n")
    backbone.copy(destination)
    manifest.write(destination)
    # LeRobot writes processors of its own later: so the manifest does not name them.
    processors.without(destination).copy(destination)


def _beside(folder: Path) -> tuple[SideFiles, SideFiles]:
    """The files of a backbone and of processors; no link among them leads out of their folder."""
    found = side_files(folder, {WEIGHTS, CONFIG}) if folder.is_dir() else SideFiles(folder)
    return found.only(f"{BACKBONE_FOLDER}/*"), found.only("policy_*processor*")


def _coded(policy: Any, name: str, state: Mapping[str, Tensor]) -> CompressedTensor:
    layer = policy.get_submodule(name.removesuffix(".weight"))
    if not isinstance(layer, CompressedLinear):
        raise CheckpointError(
            f"{name} is no longer coded ({type(layer).__name__} is in its place), so the policy "
            "cannot be saved as a compressed one. Merge or take off what was put around its layers."
        )
    shape = (layer.out_features, layer.in_features)
    parts = {part: _plain(state[f"{name}_{part}"]) for part in layer.spec.layout(shape)}
    return CompressedTensor(layer.spec, shape, parts)


def _stored(state: Mapping[str, Tensor], name: str, dtype: torch.dtype) -> Tensor:
    """A tensor in the type it was stored in, or in its own if it has changed beyond that."""
    own = _plain(state[name])
    as_stored = own.to(dtype)
    return as_stored if torch.equal(as_stored.to(own.dtype), own) else own


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()


def _config(config: PreTrainedConfig, origin: Origin) -> dict[str, Any]:
    """The policy's config, but for what it has because of the folder it was loaded from."""
    found = draccus.encode(config, PreTrainedConfig)
    for field in settings_in(origin.folder, config.type):
        found[field] = origin.config.get(field)
    return found
