"""Compressed checkpoints on disk: the file, and the policy folder around it."""

from einsort_vla.checkpoint.delta import apply as apply_patch
from einsort_vla.checkpoint.delta import diff as write_patch
from einsort_vla.checkpoint.families import FAMILIES
from einsort_vla.checkpoint.file import FORMAT_VERSION, Checkpoint, read, write
from einsort_vla.checkpoint.folder import (
    CompressionSummary,
    compress_folder,
    compressible_shapes,
    plan_folder,
    read_folder,
)
from einsort_vla.checkpoint.source import (
    TYPE_PREFIX,
    WEIGHTS,
    DenseFolder,
    file_sha256,
    read_config,
)

__all__ = [
    "FAMILIES",
    "FORMAT_VERSION",
    "TYPE_PREFIX",
    "WEIGHTS",
    "Checkpoint",
    "CompressionSummary",
    "DenseFolder",
    "apply_patch",
    "compress_folder",
    "compressible_shapes",
    "file_sha256",
    "plan_folder",
    "read",
    "read_config",
    "read_folder",
    "write",
    "write_patch",
]
