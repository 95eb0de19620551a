"""One file for the weights of all graphs of a bundle; equal ones are stored once."""

import hashlib
from pathlib import Path
from typing import Self

import onnx_ir as ir

INLINE_BYTES = 1024  # smaller constants stay in the graph: shapes and axes are read from there
ALIGNMENT = 64


class WeightFile:
    """Written while it is open; graphs refer to it by its name, so they lie in the same folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offsets: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._file = self._path.open("xb")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def take_(self, model: ir.Model) -> None:
        """Move the large weights of a graph into the file, in place."""
        for value in model.graph.initializers.values():
            tensor = value.const_value
            assert tensor is not None
            if tensor.nbytes <= INLINE_BYTES:
                continue
            value.const_value = ir.ExternalTensor(
                self._path.name, self._store(tensor.tobytes()), tensor.nbytes, tensor.dtype,
                shape=ir.Shape(tensor.shape.numpy()), name=value.name or "",
                base_dir=self._path.parent,
            )  # fmt: skip

    def _store(self, content: bytes) -> int:
        digest = hashlib.sha256(content).hexdigest()
        if digest not in self._offsets:
            self._file.write(bytes(-self._file.tell() % ALIGNMENT))
            self._offsets[digest] = self._file.tell()
            self._file.write(content)
        return self._offsets[digest]
