"""The compressed safetensors file: coded parts, dense remainder, plan and version as metadata.

A matrix `<module>.weight` is stored as `<module>.weight_<part>`; all other tensors keep name and
bytes. docs/format.md describes every byte.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from einsort_vla.codec import CodecSpec, CompressedTensor, Shape
from einsort_vla.codec.tables import TABLE_FILE
from einsort_vla.errors import CheckpointError
from einsort_vla.plan import Plan

FORMAT = "einsort"
FORMAT_VERSION = "3"


@dataclass(frozen=True)
class Checkpoint:
    """The content of one compressed file."""

    plan: Plan
    coded: dict[str, CompressedTensor]  # by the name of the matrix, `<module>.weight`
    dense: dict[str, Tensor]


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Write atomically: a file with that name is whole or not there.

    Raises:
        CheckpointError: the file exists already.
    """
    if path.exists():
        raise CheckpointError(f"{path} exists already; nothing was written over.")
    tensors = dict(checkpoint.dense)
    for name, compressed in checkpoint.coded.items():
        tensors |= {f"{name}_{part}": tensor for part, tensor in compressed.parts.items()}
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "plan": json.dumps(checkpoint.plan.as_dict(), sort_keys=True),
        "tables_sha256": tables_sha256(),
    }
    partial = path.with_name(f"{path.name}.partial")
    save_file({k: t.contiguous() for k, t in tensors.items()}, partial, metadata=metadata)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)


def read(path: Path) -> Checkpoint:
    """Read and check a compressed file.

    Raises:
        CheckpointError: missing, truncated, of another format or version, made with other tables,
            or a part is missing or has another size or type than the plan says.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist.")
    try:
        with safe_open(path, framework="pt") as file:
            plan = _read_plan(path, file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged or truncated: {error}") from error
    coded = {
        name: _take(path, tensors, name, planned.spec, planned.shape)
        for name, planned in plan.tensors.items()
    }
    return Checkpoint(plan, coded, tensors)


def tables_sha256() -> str:
    """Fingerprint of the shipped look-up tables, which a file does not repeat."""
    return file_sha256(TABLE_FILE)


def file_sha256(path: Path) -> str:
    """Fingerprint of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_plan(path: Path, metadata: dict[str, str]) -> Plan:
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not an EinSort checkpoint: its metadata does not say so.")
    if (found := metadata.get("format_version")) != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format_version {found}; this library reads {FORMAT_VERSION}. "
            "Compress the dense policy again with this version."
        )
    if metadata.get("tables_sha256") != tables_sha256():
        raise CheckpointError(f"{path} was coded with other look-up tables than this library has.")
    try:
        return Plan.from_dict(json.loads(metadata["plan"]))
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: the plan in its metadata is damaged: {error}") from error


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
