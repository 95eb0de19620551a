"""Modules that hold coded weights, and the surgery that puts them into a model."""

from einsort_vla.layers.linear import CompressedLinear, count_backends, count_fallbacks
from einsort_vla.layers.skeleton import Budget, without_weights
from einsort_vla.layers.surgery import check_fit, load_, load_dense_

__all__ = [
    "Budget",
    "CompressedLinear",
    "check_fit",
    "count_backends",
    "count_fallbacks",
    "load_",
    "load_dense_",
    "without_weights",
]
