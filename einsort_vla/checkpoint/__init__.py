"""Compressed checkpoints on disk: the file, and the policy folder around it."""

from einsort_vla.checkpoint.file import FORMAT_VERSION, Checkpoint, read, write
from einsort_vla.checkpoint.folder import (
    TYPE_PREFIX,
    CompressionSummary,
    compress_folder,
    compressible_shapes,
    read_config,
    summarize,
)

__all__ = [
    "FORMAT_VERSION",
    "TYPE_PREFIX",
    "Checkpoint",
    "CompressionSummary",
    "compress_folder",
    "compressible_shapes",
    "read",
    "read_config",
    "summarize",
    "write",
]
