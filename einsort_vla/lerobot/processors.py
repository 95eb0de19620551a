"""LeRobot's processors of a policy folder, checked before LeRobot sees them.

LeRobot imports and calls whatever class a step names, and some steps fetch by a name that the step
gives. So steps are taken by `registry_name` alone, from a list, and their names of other things are
checked. What was checked is kept in memory, and LeRobot is given a copy of that.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import msgspec
import torch
from msgspec import UNSET, Meta, Struct, UnsetType
from safetensors import SafetensorError
from safetensors.torch import load

from einsort_vla.checkpoint import check_asked
from einsort_vla.checkpoint.processors import MAX_STEPS, PREPROCESSOR, TOKENIZER_STEP
from einsort_vla.checkpoint.read_files import leads_out
from einsort_vla.checkpoint.tokenizer import TOKENIZER_FILES, check_tokenizer_json
from einsort_vla.errors import CheckpointError
from einsort_vla.families import (
    BACKBONE_FOLDER,
    CODE_OF_LEROBOT,
    Feature,
    input_features,
    output_features,
)
from einsort_vla.lerobot.normalization import check_stored
from einsort_vla.lerobot.settings import naming
from einsort_vla.reading import read_json

POSTPROCESSOR = "policy_postprocessor.json"
MAX_STATE = 2**27  # bytes of a step's file

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_ANY = None  # name on the hub: Transformers reads data of it, and no code
_PLAIN = (
    "absolute_actions_processor", "device_processor", "eo1_conversation_template_processor",
    "evo1_action_processor", "evo1_pad_action_processor", "evo1_pad_state_processor",
    "fastwam_action_toggle_processor", "groot_action_unpack_unnormalize_v2",
    "groot_n1_7_action_decode_v1", "groot_n1_7_pack_inputs_v1", "image_crop_resize_processor",
    "libero_processor", "map_delta_action_to_robot_action", "map_tensor_to_delta_action_dict",
    "normalizer_processor", "numpy2torch_action_processor", "observation_processor",
    "pi05_prepare_state_tokenizer_processor_step",
    "pi0_fast_prepare_state_tokenizer_processor_step", "pi0_new_line_processor",
    "policy_action_to_robot_action_processor", "relative_actions_processor",
    "rename_observations_processor", "robot_action_to_policy_action_processor",
    "smolvla_new_line_processor", "to_batch_processor",
    "to_batch_processor_action", "to_batch_processor_complementary_data",
    "to_batch_processor_observation", "torch2numpy_action_processor", "unnormalizer_processor",
    "vla_jepa_binarize_gripper", "vla_jepa_clip_actions", "vla_jepa_pre_snap_gripper",
    "wall_x_task_processor", "xvla_add_domain_id", "xvla_image_scale", "xvla_image_to_float",
    "xvla_imagenet_normalize", "xvla_rotation_6d_to_axis_angle", TOKENIZER_STEP,
)  # fmt: skip
_NAMES: Mapping[str, Mapping[str, frozenset[str] | None]] = {
    "tokenizer_processor": {"tokenizer_name": _ANY},
    "eo1_qwen_processor": {"processor_name": _ANY},
    # These two pass `trust_remote_code=True`.
    "action_tokenizer_processor": {
        "action_tokenizer_name": CODE_OF_LEROBOT,
        "paligemma_tokenizer_name": frozenset({"google/paligemma-3b-pt-224"}),
    },
    "groot_n1_7_vlm_encode_v1": {"model_name": CODE_OF_LEROBOT},
}
"""Steps that load something by a name: the fields that hold it, and which names are taken."""
_STEPS = {name: _NAMES.get(name, {}) for name in (*_PLAIN, *_NAMES)}

_Short = Annotated[str, Meta(max_length=200)]


class Step(Struct, forbid_unknown_fields=True):
    """One entry of `steps`."""

    registry_name: _Short = ""
    class_name: Any = msgspec.field(default=UNSET, name="class")
    config: Annotated[dict[str, Any], Meta(max_length=100)] = {}
    state_file: Annotated[str, Meta(pattern=r"^[\w-][\w.-]*\.safetensors$", max_length=200)] | (
        UnsetType
    ) = UNSET


class Pipeline(Struct, forbid_unknown_fields=True):
    """One file of processors."""

    steps: Annotated[list[Step], Meta(max_length=MAX_STEPS)]
    name: _Short = ""


@dataclass(frozen=True)
class Processors:
    """The checked processors of a folder: pipelines and bytes of state files, by file name."""

    folder: Path
    pipelines: Mapping[str, Pipeline]
    states: Mapping[str, bytes]

    @contextmanager
    def copied(self) -> Iterator[Path]:
        """A folder that holds them and nothing else, for as long as this is open."""
        with TemporaryDirectory(prefix="einsort-processors-") as name:
            folder = Path(name)
            for own, pipeline in self.pipelines.items():
                (folder / own).write_bytes(msgspec.json.encode(pipeline))
            for own, content in self.states.items():
                (folder / own).write_bytes(content)
            yield folder


def read_processors(folder: Path, config: Mapping[str, Any], is_dense: bool) -> Processors:
    """The processors of a policy folder.

    Args:
        folder: of the policy.
        config: its config.json.
        is_dense: a backbone that travels with a dense policy takes the place of the name of its
            tokenizer; a compressed one carries its tokenizer in a step.

    Raises:
        CheckpointError: a file is missing or damaged, or a step is not one of LeRobot's own, or
            names what it may not; the message says which.
    """
    names = (PREPROCESSOR, POSTPROCESSOR)
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise CheckpointError(
            f"{folder} has no {missing[0]}: its normalization is unknown. A policy of an old "
            "LeRobot gets one by lerobot/processor/migrate_policy_normalization.py."
        )
    pipelines = {name: read_json(folder / name, Pipeline) for name in names}
    states: dict[str, bytes] = {}
    with naming(folder):
        features = {**input_features(config), **output_features(config)}
    for name, pipeline in pipelines.items():
        for k, step in enumerate(pipeline.steps):
            place = f"{folder / name}: step {k}"
            if is_dense and step.registry_name == "tokenizer_processor":
                _name_backbone(folder, step)
            _check_step(folder, step, place)
            if step.state_file:
                states[step.state_file] = _read_state(folder, step, place, features)
    return Processors(folder, pipelines, states)


def check_processors(folder: Path, config: Mapping[str, Any]) -> None:
    """Check the processors of a compressed folder, if it has any; see `read_processors`."""
    if any((folder / name).is_file() for name in (PREPROCESSOR, POSTPROCESSOR)):
        read_processors(folder, config, is_dense=False)


def _name_backbone(folder: Path, step: Step) -> None:
    if (folder / BACKBONE_FOLDER).is_dir():
        step.config["tokenizer_name"] = str(folder / BACKBONE_FOLDER)


def _check_step(folder: Path, step: Step, place: str) -> None:
    if step.class_name is not UNSET:
        raise CheckpointError(
            f"{place} names the class {str(step.class_name)[:100]!r}, which LeRobot would import "
            "and call. Steps are taken by registry_name alone."
        )
    if step.registry_name not in _STEPS:
        raise CheckpointError(
            f"{place} is {step.registry_name or 'nameless'!r}, which is no step of LeRobot's own "
            f"policies. Known: {', '.join(sorted(_STEPS))}."
        )
    check_asked(step.config, place)
    for field, taken in _STEPS[step.registry_name].items():
        _check_name(folder, step, field, taken, place)


def _check_name(
    folder: Path, step: Step, field: str, taken: frozenset[str] | None, place: str
) -> None:
    name = step.config.get(field)
    if name is None or name == str(folder / BACKBONE_FOLDER):  # None is LeRobot's own
        return
    if taken is not None and name not in taken:
        raise CheckpointError(
            f"{place}: {field} is {str(name)[:100]!r}, whose code LeRobot would run. "
            f"Taken are: {', '.join(sorted(taken))}."
        )
    if not isinstance(name, str) or not _HUB_ID.fullmatch(name):
        raise CheckpointError(
            f"{place}: {field} is {str(name)[:100]!r}, which is no name on the hub. Put the "
            f"tokenizer's files into {BACKBONE_FOLDER}/ of the dense policy."
        )


def _read_state(folder: Path, step: Step, place: str, features: Mapping[str, Feature]) -> bytes:
    """The bytes of a step's file, which are found to be safetensors."""
    assert isinstance(step.state_file, str)
    path = folder / step.state_file
    if not path.is_file() or leads_out(path, folder):
        raise CheckpointError(f"{place} has the state_file {step.state_file}, which is not there.")
    with path.open("rb") as file:
        content = file.read(MAX_STATE + 1)
    if len(content) > MAX_STATE:
        raise CheckpointError(f"{path} has more than {MAX_STATE} bytes; such a file is not read.")
    try:
        state = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged or truncated: {error}") from error
    if step.registry_name == TOKENIZER_STEP:
        check_tokenizer(state, str(path))
    check_stored(state, str(path), features)
    return content


def check_tokenizer(state: Mapping[str, torch.Tensor], source: str) -> None:
    """Refuse a state that is not the files of one tokenizer.

    Raises:
        CheckpointError: a name or a type is another, or `tokenizer.json` is missing, damaged or
            beyond its bounds.
    """
    for name, content in state.items():
        if name not in TOKENIZER_FILES:
            raise CheckpointError(
                f"{source} holds a file named {name[:100]!r}; a tokenizer has "
                f"{', '.join(TOKENIZER_FILES)}."
            )
        if content.dtype != torch.uint8 or content.ndim != 1:
            raise CheckpointError(f"{source}: {name} is no row of bytes.")
    if TOKENIZER_FILES[0] not in state:
        raise CheckpointError(f"{source} lacks {TOKENIZER_FILES[0]}.")
    content = state[TOKENIZER_FILES[0]].cpu().numpy().tobytes()
    check_tokenizer_json(content, f"{source}: {TOKENIZER_FILES[0]}")
