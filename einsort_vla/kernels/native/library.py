"""The native library, called by way of ctypes."""

import ctypes
import functools

from einsort_vla.compiling import kept_in_cache
from einsort_vla.errors import MissingDependency
from einsort_vla.native_library import native_library

ABI = 1
_POINTER, _INT64, _INT32 = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32


class Matrix(ctypes.Structure):
    """`einsort_matrix`."""

    _fields_ = (
        ("words", _POINTER), ("n_words", _INT64), ("scale", _POINTER), ("unit", ctypes.c_float),
        ("rows", _INT64), ("columns", _INT64), ("eighths", _INT32), ("window", _INT32),
        ("is_rotated", _INT32),
    )  # fmt: skip


class Threads(ctypes.Structure):
    """`einsort_threads`."""

    _fields_ = (("run", _POINTER), ("threads", _POINTER), ("n", _INT64))


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled functions.

    Raises:
        MissingDependency: there is no C++ compiler, it fails, or the cache cannot be used.
    """
    with kept_in_cache("the native library"):
        loaded = ctypes.CDLL(str(native_library()))
    loaded.einsort_abi.restype = ctypes.c_int
    if loaded.einsort_abi() != ABI:
        raise MissingDependency(f"the native library is not of version {ABI}; compile it anew.")
    loaded.einsort_fault.argtypes = (_POINTER,)
    loaded.einsort_fault.restype = ctypes.c_char_p
    loaded.einsort_decode.argtypes = (_POINTER, _POINTER, _POINTER)
    loaded.einsort_multiply.argtypes = (
        _POINTER, _POINTER, _INT64, _POINTER, _POINTER, ctypes.c_int, _POINTER,
    )  # fmt: skip
    loaded.einsort_processor.restype = ctypes.c_char_p
    return loaded


@functools.lru_cache(maxsize=64)
def threads(n: int) -> Threads:
    """The pool of OpenMP that torch's own operators use; one thread where it is not GNU's."""
    pool = _gomp()
    if pool is None:
        return Threads(None, None, 1)
    run = ctypes.cast(library().einsort_run_gomp, _POINTER).value
    return Threads(run, pool, n)


@functools.cache
def _gomp() -> int | None:
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, _POINTER).value
    except (AttributeError, TypeError):  # another OpenMP, or no search of what is loaded
        return None
