"""The engines of a bundle on an NVIDIA GPU, by TensorRT or TensorRT-RTX."""

import importlib
from typing import Any

import numpy as np

from einsort_vla.errors import CheckpointError, EngineError, ShapeError
from einsort_vla.runtime import gpu
from einsort_vla.runtime.bundle import ENGINES, Bundle
from einsort_vla.runtime.engine import find_builder, read_receipt, were_built_here, why_stale
from einsort_vla.runtime.flow import Arrays, check_outputs, checked

DEFAULT_STREAM = 0


class EngineSession:
    """Runs parts; all engines are loaded at once. Inputs and outputs are copied at each run.

    The bundle's plugin and its engines are code, which is loaded into this process.

    Raises:
        CheckpointError: there are no engines, or they do not fit the bundle or this device; or the
            bundle is signed, and its engines were built elsewhere.
        MissingDependency: TensorRT, a driver or a GPU is missing.
    """

    def __init__(self, bundle: Bundle) -> None:
        builder = find_builder(bundle)
        receipt = read_receipt(bundle)
        if bundle.is_signed and not were_built_here(bundle):
            raise CheckpointError(
                f"the engines of {bundle.folder} were not built here, and no signature "
                "covers them. Build them: einsort-vla build, or einsort-device.pyz build"
            )
        if reason := why_stale(bundle, builder):
            raise CheckpointError(
                f"the engines of {bundle.folder} cannot be used: {reason}. Build them: "
                "einsort-vla build, or einsort-device.pyz build"
            )
        assert receipt is not None
        wanted, found = receipt.compute_capability, gpu.compute_capability()
        if wanted != found:
            raise CheckpointError(
                f"the engines of {bundle.folder} are for compute capability {wanted / 10}; this "
                f"GPU has {found / 10}."
            )
        self._most = bundle.manifest.batch.size
        self._bundle, self._trt = bundle, importlib.import_module(builder)
        self._trt.get_plugin_registry().load_library(str(bundle.plugin))
        runtime = self._trt.Runtime(self._trt.Logger(self._trt.Logger.ERROR))
        self._contexts = {
            part: _context(runtime, bundle, part, facts.file)
            for part, facts in receipt.parts.items()
        }

    def run(self, part: str, inputs: Arrays) -> dict[str, np.ndarray]:
        """See `Session.run`.

        Raises:
            ShapeError: an input is missing, empty or of another shape.
        """
        gpu.enter()
        context, described = self._contexts[part], self._bundle.parts[part]
        held = []
        for name, array in checked(part, described.inputs, inputs, self._most).items():
            memory = gpu.Memory(array.nbytes)
            memory.write(array.ctypes.data)
            if not context.set_input_shape(name, array.shape):
                raise ShapeError(
                    f"the engine of {part} does not take {name} of shape {list(array.shape)}."
                )
            context.set_tensor_address(name, memory.address)
            held.append(memory)
        found = {}
        for output in described.outputs:
            name = output.name
            array = np.empty(tuple(context.get_tensor_shape(name)), output.dtype)
            memory = gpu.Memory(array.nbytes)
            context.set_tensor_address(name, memory.address)
            found[name] = (array, memory)
        if not context.execute_async_v3(DEFAULT_STREAM):
            raise EngineError(f"TensorRT could not run {part}; its log says why.")
        for array, memory in found.values():
            memory.read(array.ctypes.data)
        made = {name: array for name, (array, _) in found.items()}
        check_outputs(part, described.outputs, made, self._most)
        return made


def _context(runtime: Any, bundle: Bundle, part: str, file: str) -> Any:
    engine = runtime.deserialize_cuda_engine((bundle.folder / ENGINES / file).read_bytes())
    if engine is None:
        raise EngineError(f"TensorRT cannot load the engine of {part}; its log says why.")
    context = engine.create_execution_context()
    if context is None:
        raise EngineError(f"there is no memory on the GPU for the engine of {part}.")
    return context
