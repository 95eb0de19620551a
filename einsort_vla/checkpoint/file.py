"""The compressed safetensors file: coded parts, dense remainder, plan and version as metadata.

A matrix `<module>.weight` is stored as `<module>.weight_<part>`; all other tensors keep name and
bytes. docs/format.md describes every byte.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from torch import Tensor

from einsort_vla.atomic import new_file
from einsort_vla.checkpoint.writer import FileWriter, Layout
from einsort_vla.codec import CompressedTensor
from einsort_vla.errors import CheckpointError
from einsort_vla.plan import LEAST_BITS, Plan, PlannedTensor
from einsort_vla.reading import as_record, parse_json
from einsort_vla.tensors import DTYPES, TensorFile, has_nan, is_finite, open_tensors

FORMAT = "einsort"
FORMAT_VERSION = "9"


class _Metadata(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: str
    format_version: str
    plan: str
    dropped: str
    source_sha256: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$")]
    calibrated: Literal["true", "false"]
    constants_sha256: str


@dataclass(frozen=True)
class Checkpoint:
    """The content of one compressed file."""

    plan: Plan
    coded: dict[str, CompressedTensor]  # by the name of the matrix, `<module>.weight`
    dense: dict[str, Tensor]
    dropped: dict[str, str] = field(default_factory=dict)  # name to why it is not needed
    source_sha256: str | None = ""  # of the dense weights; None where Transformers wrote the file
    is_calibrated: bool = False  # coded so that outputs stay close, not weights
    has_fingerprints: bool = True  # what Transformers' save_pretrained wrote has none


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Write atomically: a file with that name is whole or not there.

    Raises:
        CheckpointError: the file exists already.
    """
    dense = {name: (t.dtype, tuple(t.shape)) for name, t in checkpoint.dense.items()}
    with new_file(path) as partial:
        writer = FileWriter(partial, layout(checkpoint.plan, dense), metadata(checkpoint))
        for name, compressed in checkpoint.coded.items():
            writer.write(parts_by_name(name, compressed))
        writer.write(checkpoint.dense)
        writer.finish()


def layout(plan: Plan, dense: Layout) -> Layout:
    """Type and shape of every tensor of a compressed file."""
    coded = {
        f"{name}_{part}": (stored.dtype, stored.shape)
        for name, planned in plan.tensors.items()
        for part, stored in planned.spec.layout(planned.shape).items()
    }
    return coded | dict(dense)


def metadata(checkpoint: Checkpoint) -> dict[str, str]:
    """What a compressed file says of itself; its tensors are not looked at."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "plan": json.dumps(checkpoint.plan.as_dict(), sort_keys=True),
        "dropped": json.dumps(checkpoint.dropped, sort_keys=True),
        "source_sha256": checkpoint.source_sha256 or "",
        "calibrated": json.dumps(checkpoint.is_calibrated),
        "constants_sha256": constants_sha256(checkpoint.plan),
    }


def parts_by_name(name: str, compressed: CompressedTensor) -> dict[str, Tensor]:
    """The stored tensors of one matrix by their names in the file."""
    return {f"{name}_{part}": tensor for part, tensor in compressed.parts.items()}


def read(path: Path) -> Checkpoint:
    """Read and check a compressed file; its tensors have memory of their own.

    The whole layout is compared with the plan before any tensor is read.

    Raises:
        CheckpointError: missing, truncated, of another format or version, made with other
            constants; a part is missing, has another size or type than the plan says, or content
            that no encoder writes; or a number is not finite.
    """
    file = open_tensors(path)
    about = _read_metadata(path, file.metadata)
    plan = _read_plan(path, about)
    dropped = parse_json(about.dropped, dict[str, str], f"{path}: dropped in its metadata")
    dense = check_layout(file, plan, dropped)
    coded = {name: read_coded(file, name, planned) for name, planned in plan.tensors.items()}
    remainder = {name: no_nan(f"{path}: {name}", file.read(name)) for name in dense}
    return Checkpoint(
        plan, coded, remainder, dropped, about.source_sha256, about.calibrated == "true"
    )


def finite(name: str, tensor: Tensor) -> Tensor:
    """The tensor itself, if all its numbers are finite.

    Raises:
        CheckpointError: it holds NaN or infinity; the message names it.
    """
    if not is_finite(tensor):
        raise CheckpointError(f"{name} is damaged: it holds NaN or infinity.")
    return tensor


def no_nan(name: str, tensor: Tensor) -> Tensor:
    """A tensor that is not coded, if none of its numbers is NaN; a mask may well be infinite.

    Raises:
        CheckpointError: it holds NaN; the message names it.
    """
    if has_nan(tensor):
        raise CheckpointError(f"{name} is damaged: it holds NaN.")
    return tensor


def constants_sha256(plan: Plan) -> str:
    """Fingerprint of the constants that a plan uses; a file does not repeat them."""
    constants = {planned.spec.constants() for planned in plan.tensors.values()}
    digest = hashlib.sha256()
    for own in sorted(constants):
        digest.update(own)
    return digest.hexdigest()


def most_weights(*files: Path) -> int:
    """How many coded weights the size of weight files can explain."""
    return int(8 * sum(file.stat().st_size for file in files) / LEAST_BITS)


def _read_metadata(path: Path, details: Mapping[str, str]) -> _Metadata:
    if details.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not an EinSort checkpoint: its metadata does not say so.")
    if (found := details.get("format_version")) != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format_version {found}; this library reads {FORMAT_VERSION}. "
            "Compress the dense policy again with this version."
        )
    return as_record(dict(details), _Metadata, f"{path}: its metadata")


def _read_plan(path: Path, about: _Metadata) -> Plan:
    source = f"{path}: the plan in its metadata"
    content = parse_json(about.plan, dict[str, Any], source)
    plan = Plan.from_dict(content, source, most_weights(path))
    if about.constants_sha256 != constants_sha256(plan):
        raise CheckpointError(f"{path} was coded with other constants than this library has.")
    return plan


def check_layout(file: TensorFile, plan: Plan, dropped: Collection[str]) -> list[str]:
    """The names of the dense tensors, once all coded ones are as the plan says.

    Raises:
        CheckpointError: a part is missing or has another size or type, or a matrix is there twice.
    """
    expected = layout(plan, {})
    for key, (dtype, shape) in expected.items():
        if key not in file.tensors:
            raise CheckpointError(f"{file.path} lacks the tensor {key}, which its plan promises.")
        stored = file.tensors[key]
        if (DTYPES.get(stored.dtype), stored.shape) != (dtype, shape):
            raise CheckpointError(
                f"{file.path}: {key} is {stored.dtype} of shape {stored.shape}; the plan says "
                f"{dtype} of shape {shape}."
            )
    dense = [name for name in file.tensors if name not in expected]
    if twice := (plan.tensors.keys() | set(dropped)) & set(dense):
        raise CheckpointError(f"{file.path} holds {min(twice)}, which is coded or dropped.")
    return dense


def read_coded(file: TensorFile, name: str, planned: PlannedTensor) -> CompressedTensor:
    """One coded matrix.

    Raises:
        CheckpointError: it holds what no encoder writes, or a number is not finite.
    """
    parts = {
        part: finite(f"{file.path}: {name}_{part}", file.read(f"{name}_{part}"))
        for part in planned.spec.layout(planned.shape)
    }
    try:
        planned.spec.check(parts, planned.shape)
    except CheckpointError as error:
        raise CheckpointError(f"{file.path}: {name} is damaged: {error}") from error
    return CompressedTensor(planned.spec, planned.shape, parts)
