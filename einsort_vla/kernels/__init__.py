"""How a coded matrix is multiplied, by backends under one name each, and decoded fast."""

from einsort_vla.kernels.dispatch import (
    Fallback,
    check_available,
    decode_fast,
    device_of,
    make_backend,
    resolve,
)
from einsort_vla.kernels.registry import DECODED, Backend, BackendChoice

__all__ = [
    "DECODED",
    "Backend",
    "BackendChoice",
    "Fallback",
    "check_available",
    "decode_fast",
    "device_of",
    "make_backend",
    "resolve",
]
