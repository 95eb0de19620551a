"""How a coded matrix is multiplied, by backends under one name each, and decoded fast."""

from einsort_vla.kernels.backends import (
    BACKENDS,
    Backend,
    check_available,
    check_backend,
    device_of,
    make_backend,
)
from einsort_vla.kernels.decoding import decode_fast

__all__ = [
    "BACKENDS",
    "Backend",
    "check_available",
    "check_backend",
    "decode_fast",
    "device_of",
    "make_backend",
]
