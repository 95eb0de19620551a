"""The file of the native library: for PyTorch by way of ctypes, and for ONNX Runtime.

It came with the wheel and takes the best kernels for the processor, or it is compiled for this
processor at first use. This needs no torch, as what runs on devices has none.
"""

import contextlib
import functools
import os
import pkgutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from einsort_vla.compiling import MARCH, build_native, kept_in_cache
from einsort_vla.native_flags import FOLDER, HEADERS, OWN, SHIPPED, SOURCES
from einsort_vla.private import cache_folder

HERE = Path(__file__).parent / FOLDER
FILES = tuple(HERE / name for name in (*SOURCES, *HEADERS))
"""What it is compiled of."""


@functools.cache
def native_library() -> Path:
    """Where the library is; it is compiled if it is not there.

    Raises:
        MissingDependency: there is no C++ compiler, it fails, or the cache cannot be used.
    """
    shipped = HERE / SHIPPED
    if shipped.exists() and MARCH not in os.environ:
        return shipped
    with kept_in_cache("the native library"), _files() as files:
        return build_native("native", files, cache_folder(), OWN)


@contextlib.contextmanager
def _files() -> Iterator[tuple[Path, ...]]:
    """`FILES`; unpacked meanwhile, if this package is in a zipped program."""
    if HERE.is_dir():
        yield FILES
        return
    names = [file.name for file in FILES]
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            content = pkgutil.get_data("einsort_vla", f"{FOLDER}/{name}")
            assert content is not None
            Path(folder, name).write_bytes(content)
        yield tuple(Path(folder, name) for name in names)
