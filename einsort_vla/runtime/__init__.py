"""Runs an exported policy: ONNX Runtime on CPUs, TensorRT on NVIDIA devices.

Needs Python 3.10 or newer and numpy, and what it runs on; neither torch nor the rest of this
package but its errors, so that a bundle can carry it to a robot.
"""

from einsort_vla.runtime.bundle import is_bundle, open_bundle
from einsort_vla.runtime.measure import WHOLE_CHUNK
from einsort_vla.runtime.onnx import OnnxSession

__all__ = ["WHOLE_CHUNK", "OnnxSession", "is_bundle", "open_bundle"]
