"""Whether a dense policy's names are those of its policy class: asked before hours of coding."""

import torch

from einsort_vla.checkpoint import DenseFolder
from einsort_vla.checkpoint.processors import PREPROCESSOR
from einsort_vla.errors import CheckpointError, MissingDependency
from einsort_vla.layers import check_fit
from einsort_vla.lerobot.loading import build_dense, quiet_lerobot
from einsort_vla.lerobot.processors import read_processors
from einsort_vla.lerobot.settings import family_or_plain, fitting

_OLD_BUFFERS = ("normalize_inputs.", "normalize_targets.", "unnormalize_outputs.")


def check_loads(dense: DenseFolder) -> str | None:
    """Refuse a dense LeRobot policy that could not be loaded again once it is compressed.

    Its names and shapes are compared with those of the policy class, which is built without
    weights.

    Returns:
        Why they were not compared, or None: LeRobot is not installed, or cannot use the folder's
        JSON, since it is another release, or something is named there that this machine lacks.

    Raises:
        CheckpointError: names or shapes differ.
    """
    _check_names(dense)
    try:
        with quiet_lerobot():
            if (dense.folder / PREPROCESSOR).is_file():
                read_processors(dense.folder, dense.config, is_dense=True)
            module = build_dense(dense)
    except (CheckpointError, MissingDependency) as error:
        return str(error)
    empty = {name: torch.empty(t.shape, device="meta") for name, t in dense.tensors.items()}
    own = family_or_plain(dense.policy_type).in_policy(module, empty)
    with fitting(dense.folder):
        check_fit(module, {name: tuple(tensor.shape) for name, tensor in own.items()})
    return None


def _check_names(dense: DenseFolder) -> None:
    """Names whose reason is known, so that the fix is, too."""
    old = next((name for name in dense.tensors if name.startswith(_OLD_BUFFERS)), None)
    if old is not None:
        raise CheckpointError(
            f"{dense.folder} was written by an old LeRobot: it holds its normalization as weights "
            f"({old}). Migrate it first: python -m lerobot.processor.migrate_policy_normalization "
            f"--pretrained-path {dense.folder}"
        )
