"""The engines of a bundle, loaded by TensorRT or TensorRT-RTX and compared with the manifest."""

import functools
import importlib
import threading
from pathlib import Path
from typing import Any

from einsort_vla.errors import CheckpointError, EngineError
from einsort_vla.runtime import gpu
from einsort_vla.runtime.buffers import engine_outputs
from einsort_vla.runtime.bundle import ENGINES, Bundle
from einsort_vla.runtime.engine import Receipt
from einsort_vla.runtime.manifest import Part

_TYPES = {"float32": "FLOAT", "bool": "BOOL", "int64": "INT64"}  # TensorRT's names of numpy's
_loading = threading.Lock()
# What the registry has, by builder, as fingerprint: it is one a process, whatever is done here.
_plugins: dict[str, str] = {}


class LoadedEngines:
    """All engines of a bundle. Needs a thread that has entered the GPU's context.

    Attributes:
        workspace_bytes: what the one that needs most takes, beside its inputs and outputs.

    Raises:
        CheckpointError: an engine has not the tensors of its part.
        EngineError: the plugin or an engine cannot be loaded.
    """

    def __init__(self, builder: str, bundle: Bundle, receipt: Receipt) -> None:
        self._trt = importlib.import_module(builder)
        _load_plugin(self._trt, builder, bundle, receipt)
        runtime = self._trt.Runtime(_logger(self._trt))
        self._engines: dict[str, Any] = {}
        for part, facts in receipt.parts.items():
            path = bundle.folder / ENGINES / facts.file
            self._engines[part] = _engine(runtime, path)
            _check_tensors(self._engines[part], path, part, bundle.parts[part])
        self.workspace_bytes = max(e.device_memory_size_v2 for e in self._engines.values())

    def context(self, part: str, workspace: int) -> Any:
        """A new execution context.

        Args:
            part: whose.
            workspace: address of as many bytes of the GPU's memory as said above.

        Raises:
            EngineError: the GPU has too little memory.
        """
        trt, engine = self._trt, self._engines[part]
        ours = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if hasattr(engine, "create_runtime_config"):  # TensorRT-RTX
            config = engine.create_runtime_config()
            config.set_execution_context_allocation_strategy(ours)
            # Else it starts with a slower kernel, which would stay in the recorded graph.
            eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
            config.dynamic_shapes_kernel_specialization_strategy = eager
            context = engine.create_execution_context(config)
        else:
            context = engine.create_execution_context(ours)
        if context is None:
            raise EngineError(f"TensorRT cannot prepare the engine of {part}{_told()}")
        context.set_device_memory(workspace, engine.device_memory_size_v2)
        return context

    def close(self) -> None:
        """Let them go; their execution contexts must be gone."""
        self._engines.clear()


def _load_plugin(trt: Any, builder: str, bundle: Bundle, receipt: Receipt) -> None:
    """Load the bundle's plugin, unless another session has: a registry takes each name once."""
    with _loading:
        loaded = _plugins.get(builder)
        if loaded is not None and loaded != receipt.plugin:
            raise EngineError(
                f"the plugin of {bundle.folder} cannot be loaded: this process has one of another "
                "version. Run this policy in a process of its own, or export both anew."
            )
        if loaded is None:
            if trt.get_plugin_registry().load_library(str(bundle.plugin)) is None:
                raise EngineError(f"TensorRT cannot load {bundle.plugin}{_told()}")
            _plugins[builder] = receipt.plugin


@functools.cache
def _logger(trt: Any) -> Any:
    """Writes to the error output. One a process, which stays: TensorRT keeps the first one."""
    return trt.Logger(trt.Logger.ERROR)


def _engine(runtime: Any, path: Path) -> Any:
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        size = path.stat().st_size
        raise EngineError(f"TensorRT cannot load {path} of {size / 1e6:.1f} MB{_told()}")
    return engine


def _told() -> str:
    free = gpu.free_bytes() / 1e6
    return f"; what it printed says why. {free:.1f} MB of the GPU's memory are free."


def _check_tensors(engine: Any, path: Path, part: str, described: Part) -> None:
    """Names, directions, types and places; shapes are those of a context."""
    names = [engine.get_tensor_name(k) for k in range(engine.num_io_tensors)]
    found = {
        name: f"{engine.get_tensor_mode(name).name} {engine.get_tensor_dtype(name).name} on "
        f"{engine.get_tensor_location(name).name}"
        for name in names
    }
    sides = ("INPUT", described.inputs), ("OUTPUT", engine_outputs(part, described))
    wanted = {
        value.name: f"{side} {_TYPES[value.dtype]} on DEVICE"
        for side, values in sides
        for value in values
    }
    for name in sorted(wanted.keys() | found.keys()):
        its, ours = found.get(name, "nothing"), wanted.get(name, "nothing")
        if its != ours:
            raise CheckpointError(
                f"{path} does not fit the bundle: in it {name} is {its}, and by the manifest it is "
                f"{ours}. Remove {path.parent} and build again."
            )
