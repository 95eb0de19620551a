"""Compressed checkpoints on disk: the file, and the policy folder around it."""

from einsort_vla.checkpoint.file import FORMAT_VERSION, Checkpoint, read, write
from einsort_vla.checkpoint.folder import (
    TYPE_PREFIX,
    WEIGHTS,
    CompressionSummary,
    compress_folder,
    compressible_shapes,
    dense_type,
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
    "read",
    "read_config",
    "read_folder",
    "write",
]
