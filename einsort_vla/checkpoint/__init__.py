"""Compressed checkpoints on disk: the file, and the policy folder around it."""

from einsort_vla.checkpoint.card import write_results
from einsort_vla.checkpoint.comparison import Comparison, compare_matrices, compare_rest
from einsort_vla.checkpoint.delta import apply as apply_patch
from einsort_vla.checkpoint.delta import diff as write_patch
from einsort_vla.checkpoint.file import Checkpoint, read, write
from einsort_vla.checkpoint.folder import (
    CompressionSummary,
    compress_folder,
    plan_candidates,
    plan_folder,
    read_folder,
)
from einsort_vla.checkpoint.limits import check_asked
from einsort_vla.checkpoint.manifest import exists as has_manifest
from einsort_vla.checkpoint.read_files import file_sha256
from einsort_vla.checkpoint.saved import check_parts
from einsort_vla.checkpoint.size import plan_size, plan_to_fit
from einsort_vla.checkpoint.source import (
    METHOD,
    WEIGHTS,
    DenseFolder,
    is_compressed,
    read_config,
    weight_files,
)
from einsort_vla.checkpoint.tokenizer import check_tokenizer_folder
from einsort_vla.checkpoint.transformers_layers import (
    is_transposed,
    linear_layers,
    linear_shape,
    model_class,
)

__all__ = [
    "METHOD",
    "WEIGHTS",
    "Checkpoint",
    "Comparison",
    "CompressionSummary",
    "DenseFolder",
    "apply_patch",
    "check_asked",
    "check_parts",
    "check_tokenizer_folder",
    "compare_matrices",
    "compare_rest",
    "compress_folder",
    "file_sha256",
    "has_manifest",
    "is_compressed",
    "is_transposed",
    "linear_layers",
    "linear_shape",
    "model_class",
    "plan_candidates",
    "plan_folder",
    "plan_size",
    "plan_to_fit",
    "read",
    "read_config",
    "read_folder",
    "weight_files",
    "write",
    "write_patch",
    "write_results",
]
