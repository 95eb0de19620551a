"""Compressed checkpoints on disk: the file, and the policy folder around it."""

from einsort_vla.checkpoint.card import write_results
from einsort_vla.checkpoint.delta import apply as apply_patch
from einsort_vla.checkpoint.delta import diff as write_patch
from einsort_vla.checkpoint.file import FORMAT_VERSION, Checkpoint, read, write
from einsort_vla.checkpoint.folder import (
    CompressionSummary,
    compress_folder,
    compressible_shapes,
    for_language,
    plan_folder,
    read_folder,
)
from einsort_vla.checkpoint.source import (
    METHOD,
    WEIGHTS,
    DenseFolder,
    check_new,
    file_sha256,
    is_compressed,
    read_config,
)
from einsort_vla.checkpoint.transformers_layers import linear_layers

__all__ = [
    "FORMAT_VERSION",
    "METHOD",
    "WEIGHTS",
    "Checkpoint",
    "CompressionSummary",
    "DenseFolder",
    "apply_patch",
    "check_new",
    "compress_folder",
    "compressible_shapes",
    "file_sha256",
    "for_language",
    "is_compressed",
    "linear_layers",
    "plan_folder",
    "read",
    "read_config",
    "read_folder",
    "write",
    "write_patch",
    "write_results",
]
