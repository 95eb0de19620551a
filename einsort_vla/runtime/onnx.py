"""The graphs of a bundle on a CPU, by ONNX Runtime."""

import functools
import logging
from pathlib import Path
from typing import Any

import numpy as np

from einsort_vla.errors import CheckpointError, importing
from einsort_vla.native_library import native_library
from einsort_vla.runtime.bundle import Bundle
from einsort_vla.runtime.flow import Arrays, check_outputs, checked
from einsort_vla.runtime.manifest import CHUNK

log = logging.getLogger(__name__)


class OnnxSession:
    """Runs parts as they are asked for; each is opened at its first run.

    With the native library coded layers are multiplied from their streams, which are mapped from
    the file of weights. Without it their meaning in ONNX's own operators runs: each matrix is
    decoded when its part is opened, and takes float32's memory from then on (while it is opened,
    some twenty times that). One line of the log says so.

    Args:
        bundle: what is run.
        threads: of one operator.

    Raises:
        MissingDependency: onnxruntime is not installed.
    """

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        self._bundle = bundle
        install = "Install it with: pip install onnxruntime"
        with importing("onnxruntime cannot be imported", install):
            import onnxruntime
        self._runtime: Any = onnxruntime
        self._options, self.is_coded = _options(onnxruntime)
        self._options.intra_op_num_threads = threads
        self._options.log_severity_level = 4  # errors are raised, too
        # From the second run on patterns would hold another block beside what the first run took.
        self._options.enable_mem_pattern = False
        self._opened: dict[str, Any] = {}

    @property
    def precision(self) -> str:
        """What the inputs of coded layers are rounded to: `int16`, or `float32` for not at all."""
        return "int16" if self.is_coded else self._bundle.manifest.precision.onnx

    def run(self, part: str, inputs: Arrays) -> dict[str, np.ndarray]:
        """See `Session.run`; `chunk` is a part, too.

        Raises:
            CheckpointError: the graph cannot be opened or run, or is not as its manifest says.
            ShapeError: an input is missing, empty or of another shape.
        """
        if part not in self._opened:
            self._opened[part] = self._open(self._bundle.graph(part))
        session = self._opened[part]
        manifest = self._bundle.manifest
        described = manifest.chunk if part == CHUNK else manifest.parts[part]
        most = manifest.batch.size
        given = checked(part, described.inputs, inputs, most)
        names = [output.name for output in described.outputs]
        try:
            found = dict(zip(names, session.run(names, given)))  # noqa: B905  Python 3.10
        except Exception as error:  # the runtime's own kinds
            path = self._bundle.graph(part)
            raise CheckpointError(f"ONNX Runtime cannot run {path}: {_short(error)}") from error
        check_outputs(part, described.outputs, found, most)
        return found

    def _open(self, path: Path) -> Any:
        try:
            return self._runtime.InferenceSession(
                str(path), self._options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the runtime's own kinds
            raise CheckpointError(f"ONNX Runtime cannot open {path}: {_short(error)}") from error


def _options(runtime: Any) -> tuple[Any, bool]:
    """Options of a session, and whether the native library runs coded layers in it."""
    options = runtime.SessionOptions()
    try:
        options.register_custom_ops_library(str(native_library()))
        return options, True
    except Exception as error:  # the runtime's own kinds, too
        reason = _short(error)
    _log_once(
        "ONNX Runtime decodes coded layers to float32, as it cannot load the native library: "
        f"{reason.rstrip('.')}. The library comes with pip install einsort-vla, or a C++ compiler "
        "makes it: apt-get install g++."
    )
    return runtime.SessionOptions(), False


@functools.cache
def _log_once(message: str) -> None:
    log.warning("%s", message)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:400]
