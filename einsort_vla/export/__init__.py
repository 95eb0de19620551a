"""Policies as ONNX graphs over their coded weights, and as bundles for devices.

The packages of the extra `export` are imported when something is exported.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from einsort_vla.errors import MissingDependency
from einsort_vla.export.options import MAX_BATCH, GraphOptions
from einsort_vla.export.targets import TARGETS, Target, find_target
from einsort_vla.lerobot import Observation

__all__ = [
    "MAX_BATCH",
    "TARGETS",
    "GraphOptions",
    "Target",
    "export_bundle",
    "find_target",
]


def export_bundle(
    source: Path,
    out: Path,
    target: Target,
    options: GraphOptions,
    observations: Sequence[Observation] = (),
    on_progress: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """See `bundle.export_bundle`.

    Raises:
        MissingDependency: a package of the extra `export` is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingDependency(
            f"exporting needs more packages ({error}). Install them with: "
            "pip install 'einsort-vla[export]'"
        ) from error
    from einsort_vla.export import bundle

    return bundle.export_bundle(source, out, target, options, observations, on_progress)
