"""The compiled search: the same as the plain one, hundreds of times as fast."""

import ctypes
import functools
import logging
from pathlib import Path

import torch
from torch import Tensor

from einsort_vla.codec.curve import layout
from einsort_vla.compiling import build_native, kept_in_cache
from einsort_vla.errors import MissingDependency
from einsort_vla.private import cache_folder

SOURCES = (Path(__file__).with_name("search.cpp"),)
_POINTER, _INT64, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
log = logging.getLogger(__name__)


def search_native(
    targets: Tensor, values: Tensor, zoom: int, eighths: int, beyond: int
) -> tuple[Tensor, Tensor] | None:
    """What `Search.find` returns; None without a compiler.

    Args:
        targets: (n, rows) int16, `FINER` than values.
        values: (2^window,) int32.
        zoom: bits; see `Search`.
        eighths: of a bit a weight.
        beyond: rows beyond the seam; see `Search`.
    """
    if (native := _library()) is None:
        return None
    n, rows = targets.shape
    targets, curve = targets.contiguous(), values.to(torch.int8)
    words = torch.empty(n, layout.n_words_of((rows, 1), eighths), dtype=torch.int32)
    found = torch.empty(n, rows, dtype=torch.int8)
    native.einsort_search_curve(
        targets.data_ptr(), n, rows, curve.data_ptr(), len(curve).bit_length() - 1, zoom, eighths,
        layout.SEGMENT, beyond, words.data_ptr(), found.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    return words, found


@functools.cache
def _library() -> ctypes.CDLL | None:
    try:
        with kept_in_cache("the compiled search"):
            loaded = ctypes.CDLL(str(build_native("search", SOURCES, cache_folder())))
    except MissingDependency as error:
        log.warning("coding runs in PyTorch, which takes far longer: %s", error)
        return None
    loaded.einsort_search_curve.argtypes = (
        _POINTER, _INT64, _INT64, _POINTER, _INT, _INT, _INT, _INT64, _INT64, _POINTER, _POINTER,
        _INT,
    )  # fmt: skip
    loaded.einsort_search_curve.restype = None
    return loaded
