"""Modules that hold coded weights, and the surgery that puts them into a model."""

from einsort_vla.layers.linear import CompressedLinear, count_backends, count_fallbacks
from einsort_vla.layers.skeleton import without_weights
from einsort_vla.layers.surgery import load_

__all__ = ["CompressedLinear", "count_backends", "count_fallbacks", "load_", "without_weights"]
