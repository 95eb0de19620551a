"""Compiles the C++ here for this machine once, and keeps the library in the user's cache."""

import ctypes
import functools
from pathlib import Path

from einsort_vla import compiling
from einsort_vla.private import cache_folder

SOURCES = tuple(Path(__file__).with_name(name) for name in ("leader.cpp", "unrotate.cpp"))
_POINTER, _INT64, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
_MATRIX = (_POINTER, _INT64, _POINTER, _INT64, _POINTER, _INT64, _INT, _INT, _INT, _INT64, _INT)


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled functions.

    Raises:
        MissingDependency: there is no C++ compiler, it fails, or the cache cannot be used.
    """
    with compiling.kept_in_cache("the compiled kernels"):
        loaded = ctypes.CDLL(str(build(cache_folder())))
    loaded.einsort_decode_leader.argtypes = (*_MATRIX, _POINTER, _INT64)
    loaded.einsort_matmul_leader.argtypes = (*_MATRIX, _POINTER, _INT64, _POINTER, _INT64)
    loaded.einsort_unrotate.argtypes = (
        _POINTER, _INT64, _INT64, _INT64, _INT64, _POINTER, _POINTER, _INT,
    )  # fmt: skip
    loaded.einsort_decode_leader.restype = None
    loaded.einsort_matmul_leader.restype = None
    loaded.einsort_unrotate.restype = None
    return loaded


def build(folder: Path) -> Path:
    """The library in `folder`; see `compiling.build_native`."""
    return compiling.build_native("leader", SOURCES, folder)
