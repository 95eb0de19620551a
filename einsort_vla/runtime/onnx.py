"""The graphs of a bundle on a CPU, by ONNX Runtime."""

from pathlib import Path
from typing import Any

import numpy as np

from einsort_vla.errors import CheckpointError, importing
from einsort_vla.runtime.bundle import Bundle
from einsort_vla.runtime.flow import Arrays, check_outputs, checked
from einsort_vla.runtime.manifest import CHUNK


class OnnxSession:
    """Runs parts as they are asked for; each is opened at its first run.

    Coded weights are decoded once, when a part is opened, and take float32's memory from then on
    (while it is opened, some ten times that). Without `decode_once` each run decodes them again:
    slow, but no larger than the largest layer.

    Args:
        bundle: what is run.
        threads: of one operator.
        decode_once: see above.

    Raises:
        MissingDependency: onnxruntime is not installed.
    """

    def __init__(self, bundle: Bundle, threads: int = 1, decode_once: bool = True) -> None:
        self._bundle = bundle
        install = "Install it with: pip install onnxruntime"
        with importing("onnxruntime cannot be imported", install):
            import onnxruntime
        self._runtime: Any = onnxruntime
        self._options = self._runtime.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._options.log_severity_level = 4  # errors are raised, too
        self._disabled = [] if decode_once else ["ConstantFolding"]
        self._opened: dict[str, Any] = {}

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
                str(path), self._options, providers=["CPUExecutionProvider"],
                disabled_optimizers=self._disabled,
            )  # fmt: skip
        except Exception as error:  # the runtime's own kinds
            raise CheckpointError(f"ONNX Runtime cannot open {path}: {_short(error)}") from error


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:400]
