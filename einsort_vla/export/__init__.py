"""Policies as ONNX graphs over their coded weights, and as bundles for devices.

It needs the packages of the extra `export`.
"""

from einsort_vla.errors import importing

with importing(
    "exporting needs more packages", "Install them with: pip install 'einsort-vla[export]'"
):
    import onnx as _onnx  # noqa: F401
    import onnxscript as _onnxscript  # noqa: F401

from einsort_vla.export.bundle import export_bundle
from einsort_vla.export.targets import GraphOptions, Target, find_target

__all__ = ["GraphOptions", "Target", "export_bundle", "find_target"]
