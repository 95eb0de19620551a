"""How a coded matrix is multiplied: backends under one name each."""

from einsort_vla.kernels.backends import (
    BACKENDS,
    Backend,
    check_available,
    check_backend,
    device_of,
    make_backend,
)

__all__ = [
    "BACKENDS",
    "Backend",
    "check_available",
    "check_backend",
    "device_of",
    "make_backend",
]
