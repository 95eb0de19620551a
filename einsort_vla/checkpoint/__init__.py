"""Compressed checkpoints on disk: the file, and the policy folder around it."""

from einsort_vla.checkpoint.file import FORMAT_VERSION, Checkpoint, file_sha256, read, write
from einsort_vla.checkpoint.folder import (
    TYPE_PREFIX,
    WEIGHTS,
    CompressionSummary,
    compress_folder,
    compressible_shapes,
    dense_type,
    plan_folder,
    read_config,
    read_folder,
)

__all__ = [
    "FORMAT_VERSION",
    "TYPE_PREFIX",
    "WEIGHTS",
    "Checkpoint",
    "CompressionSummary",
    "compress_folder",
    "compressible_shapes",
    "dense_type",
    "file_sha256",
    "plan_folder",
    "read",
    "read_config",
    "read_folder",
    "write",
]
