"""What an ONNX file refers to, read from its bytes: a device has no package onnx.

A graph may name any file of the machine as one with its weights. Ours name one: `weights.bin`
beside it.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path

from einsort_vla.errors import CheckpointError
from einsort_vla.runtime.manifest import WEIGHT_FILE

MAX_GRAPH = 2**28  # bytes; weights lie in a file of their own
# Messages in a graph: each takes some hundred bytes of memory, and as little as two in the file.
MAX_MESSAGES = 2**21
MAX_DEPTH = 32
MAX_EXTERNAL = 2**10  # bytes of an entry of external_data
_MODEL, _GRAPH, _NODE, _ATTRIBUTE, _TENSOR, _SPARSE, _TRAINING, _FUNCTION, _EXTERNAL = range(9)
# Kind of message by the number of its field, for each kind that may hold a tensor (onnx.proto).
_FIELDS = {
    _MODEL: {7: _GRAPH, 20: _TRAINING, 25: _FUNCTION},
    _GRAPH: {1: _NODE, 5: _TENSOR, 15: _SPARSE},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE},
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
    _TRAINING: {1: _GRAPH, 2: _GRAPH},
    _FUNCTION: {7: _NODE, 11: _ATTRIBUTE},
    _TENSOR: {13: _EXTERNAL},
}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_KEY, _VALUE = 1, 2  # fields of an entry of external_data
_KNOWN = (b"location", b"offset", b"length")


class _Damaged(ValueError):
    """Why it is no graph of ours."""


def check_graph(path: Path) -> None:
    """Check that a graph is bounded, and that all it refers to is the file of weights beside it.

    Raises:
        CheckpointError: it is not, or it is no ONNX file.
    """
    size = path.stat().st_size
    try:
        if not 0 < size <= MAX_GRAPH:
            raise _Damaged(f"it has {size} bytes, it must have 1 to {MAX_GRAPH}")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _check(data)
    except _Damaged as error:
        raise CheckpointError(f"{path} is damaged: {error}. Export the policy again.") from error


def _check(data: mmap.mmap) -> None:
    messages, pending = 0, [(_MODEL, 0, len(data), 0)]
    while pending:
        kind, start, end, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise _Damaged("its graphs are nested too deeply")
        if kind == _EXTERNAL:
            _check_external(data, start, end)
            continue
        inner = _FIELDS[kind]
        for number, begin, stop in _fields(data, start, end):
            messages += 1
            if messages > MAX_MESSAGES:
                raise _Damaged(f"it has more than {MAX_MESSAGES} entries")
            if number in inner:
                pending.append((inner[number], begin, stop, depth + (inner[number] == _GRAPH)))


def _check_external(data: mmap.mmap, start: int, end: int) -> None:
    """One entry of `external_data`, a name with its value."""
    if end - start > MAX_EXTERNAL:
        raise _Damaged("a tensor refers to a file with a long name")
    entry = [(number, data[begin:stop]) for number, begin, stop in _fields(data, start, end)]
    if [number for number, _ in entry] != [_KEY, _VALUE]:
        raise _Damaged("a tensor refers to a file in an unknown way")
    key, value = entry[0][1], entry[1][1]
    if key not in _KNOWN or (key == b"location" and value != WEIGHT_FILE.encode()):
        raise _Damaged(
            f"a tensor refers to {value[:80]!a} by {key[:80]!a}; {WEIGHT_FILE} is all it may have"
        )


def _fields(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number and place of each field that is a message or bytes; others have no place."""
    while at < end:
        tag, at = _varint(data, at, end)
        number, wire = tag >> 3, tag & 7
        begin = stop = at
        if wire == _VARINT:
            _, at = _varint(data, at, end)
        elif wire == _BYTES:
            size, begin = _varint(data, at, end)
            at = stop = begin + size
        elif wire in (_FIXED32, _FIXED64):
            at += 8 if wire == _FIXED64 else 4
        else:
            raise _Damaged("it is no ONNX file")
        if at > end:
            raise _Damaged("it is no ONNX file, or cut off")
        yield number, begin, stop


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """A number in 7 bits a byte, and where it ends."""
    value = 0
    for k in range(10):
        if at + k >= end:
            raise _Damaged("it is no ONNX file, or cut off")
        byte = data[at + k]
        value |= (byte & 0x7F) << 7 * k
        if byte < 0x80:
            return value, at + k + 1
    raise _Damaged("it is no ONNX file")
