"""The compressed safetensors file: coded parts, dense remainder, plan and version as metadata.

A matrix `<module>.weight` is stored as `<module>.weight_<part>`; all other tensors keep name and
bytes. docs/format.md describes every byte.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from einsort_vla.atomic import atomic_file, check_new
from einsort_vla.checkpoint.source import open_weights
from einsort_vla.checkpoint.writer import FileWriter, Layout
from einsort_vla.codec import CodecSpec, CompressedTensor, Shape
from einsort_vla.errors import CheckpointError
from einsort_vla.plan import Plan

FORMAT = "einsort"
FORMAT_VERSION = "6"


@dataclass(frozen=True)
class Checkpoint:
    """The content of one compressed file."""

    plan: Plan
    coded: dict[str, CompressedTensor]  # by the name of the matrix, `<module>.weight`
    dense: dict[str, Tensor]
    dropped: dict[str, str] = field(default_factory=dict)  # name to why it is not needed
    source_sha256: str = ""  # of the dense weights
    is_calibrated: bool = False  # coded so that outputs stay close, not weights


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Write atomically: a file with that name is whole or not there.

    Raises:
        CheckpointError: the file exists already.
    """
    check_new(path)
    dense = {name: (t.dtype, tuple(t.shape)) for name, t in checkpoint.dense.items()}
    with atomic_file(path) as partial:
        writer = FileWriter(partial, layout(checkpoint.plan, dense), metadata(checkpoint))
        try:
            for name, compressed in checkpoint.coded.items():
                writer.write(parts_by_name(name, compressed))
            writer.write(checkpoint.dense)
            writer.finish()
        finally:
            writer.discard()


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
        "source_sha256": checkpoint.source_sha256,
        "calibrated": json.dumps(checkpoint.is_calibrated),
        "tables_sha256": tables_sha256(checkpoint.plan),
    }


def parts_by_name(name: str, compressed: CompressedTensor) -> dict[str, Tensor]:
    """The stored tensors of one matrix by their names in the file."""
    return {f"{name}_{part}": tensor for part, tensor in compressed.parts.items()}


def read(path: Path) -> Checkpoint:
    """Read and check a compressed file.

    Raises:
        CheckpointError: missing, truncated, of another format or version, made with other tables,
            or a part is missing or has another size or type than the plan says.
    """
    with open_weights(path) as file:
        details = file.metadata() or {}
        plan = _read_plan(path, details)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    coded = {
        name: _take(path, tensors, name, planned.spec, planned.shape)
        for name, planned in plan.tensors.items()
    }
    dropped, is_calibrated = (json.loads(details[key]) for key in ("dropped", "calibrated"))
    return Checkpoint(plan, coded, tensors, dropped, details["source_sha256"], is_calibrated)


def tables_sha256(plan: Plan) -> str:
    """Fingerprint of the look-up tables that a plan uses; a file does not repeat them."""
    constants = {planned.spec.constants() for planned in plan.tensors.values()}
    digest = hashlib.sha256()
    for own in sorted(constants):
        digest.update(own)
    return digest.hexdigest()


def _read_plan(path: Path, details: dict[str, str]) -> Plan:
    if details.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not an EinSort checkpoint: its metadata does not say so.")
    if (found := details.get("format_version")) != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format_version {found}; this library reads {FORMAT_VERSION}. "
            "Compress the dense policy again with this version."
        )
    try:
        plan = Plan.from_dict(json.loads(details["plan"]))
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: the plan in its metadata is damaged: {error}") from error
    if details.get("tables_sha256") != tables_sha256(plan):
        raise CheckpointError(f"{path} was coded with other look-up tables than this library has.")
    return plan


def _take(
    path: Path, tensors: dict[str, Tensor], name: str, spec: CodecSpec, shape: Shape
) -> CompressedTensor:
    """Move the parts of one matrix out of `tensors`, checked against the plan."""
    parts: dict[str, Tensor] = {}
    for part, expected in spec.layout(shape).items():
        key = f"{name}_{part}"
        if key not in tensors:
            raise CheckpointError(f"{path} lacks the tensor {key}, which its plan promises.")
        stored = parts[part] = tensors.pop(key)
        if (stored.dtype, tuple(stored.shape)) != expected:
            raise CheckpointError(
                f"{path}: {key} is {stored.dtype} of shape {tuple(stored.shape)}; the plan says "
                f"{expected.dtype} of shape {expected.shape}, for {spec}."
            )
        if stored.is_floating_point() and not torch.isfinite(stored).all():
            raise CheckpointError(f"{path}: {key} is damaged: it holds NaN or infinity.")
    return CompressedTensor(spec, shape, parts)
