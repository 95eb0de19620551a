"""samples.npz of a bundle: what the model was shown at export, and its actions.

`numpy.load` believes a header before it looks at the bytes, and a small file may unpack to
gigabytes. Here arrays are stored as they are, and each must be as large as its header says.
"""

import math
import zipfile
from collections.abc import Iterator
from typing import IO

import numpy as np

from einsort_vla.errors import CheckpointError
from einsort_vla.runtime.bundle import Bundle
from einsort_vla.runtime.manifest import ACTIONS, SAMPLES, Value


def samples(bundle: Bundle) -> Iterator[dict[str, np.ndarray]]:
    """What was stored to verify with, one at a time, each as a batch of the bundle's size.

    Raises:
        CheckpointError: the file is damaged, or its arrays are not what the graphs take.
    """
    stored, batch = _read(bundle), bundle.manifest.batch
    size = 1 if batch.dynamic else batch.size
    for k in range(len(stored[ACTIONS])):
        yield {name: np.repeat(array[k : k + 1], size, 0) for name, array in stored.items()}


def _read(bundle: Bundle) -> dict[str, np.ndarray]:
    path, chunk = bundle.folder / SAMPLES, bundle.manifest.chunk
    expected = {value.name: value for value in (*chunk.inputs, *chunk.outputs)}
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(archive, path.stat().st_size, set(expected))
            stored = {
                name: _array(archive.open(f"{name}.npy"), archive.getinfo(f"{name}.npy").file_size)
                for name in expected
            }
        _check_shapes(stored, expected)
    except Exception as error:  # whatever zipfile and numpy find wrong
        raise CheckpointError(f"{path} is damaged: {error}. Export the policy again.") from error
    return stored


def _check_members(archive: zipfile.ZipFile, size: int, expected: set[str]) -> None:
    members = archive.infolist()
    names = sorted(member.filename for member in members)
    if names != sorted(f"{name}.npy" for name in expected):
        raise ValueError(f"it holds {', '.join(names)[:200]!a}, not an array for each input")
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("its arrays are compressed; an export stores them as they are")
    if sum(member.file_size for member in members) > size:
        raise ValueError("its arrays are larger than the file")


def _array(file: IO[bytes], size: int) -> np.ndarray:
    """An array whose bytes are there, of one of the types that graphs take."""
    with file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("an array is of an unknown version")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        rest = size - file.tell()
        if dtype.str not in ("<f4", "<i8", "|b1"):
            raise ValueError(f"an array is of type {dtype.str[:20]!a}")
        if min(shape, default=0) < 1 or math.prod(shape) * dtype.itemsize != rest:
            raise ValueError(f"an array of shape {shape} has {rest} bytes")
        return np.frombuffer(file.read(), dtype).reshape(shape, order="F" if fortran else "C")


def _check_shapes(stored: dict[str, np.ndarray], expected: dict[str, Value]) -> None:
    n = len(stored[ACTIONS])
    for name, array in stored.items():
        wanted = (n, *expected[name].shape[1:])
        if array.shape != wanted or array.dtype.name != expected[name].dtype:
            raise ValueError(
                f"{name} is {array.dtype.name} of shape {array.shape}; the graphs take "
                f"{expected[name].dtype} of shape {wanted}"
            )
