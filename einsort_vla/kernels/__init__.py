"""How a coded matrix is multiplied: backends under one name each."""

from einsort_vla.kernels.backends import BACKENDS, Backend, make_backend

__all__ = ["BACKENDS", "Backend", "make_backend"]
