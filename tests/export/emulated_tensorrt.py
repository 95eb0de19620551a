"""TensorRT without a GPU: engines are ONNX files, run by ONNX Runtime as work of a stream."""

from enum import Enum
from types import ModuleType, SimpleNamespace

import numpy as np
import onnx
import onnxruntime

_NUMPY = {"FLOAT": np.float32, "BOOL": np.bool_, "INT64": np.int64}
_WORKSPACE_BYTES = 1000
Mode, Place = Enum("Mode", ["INPUT", "OUTPUT"]), Enum("Place", ["DEVICE", "HOST"])


def emulated_tensorrt(driver, name):
    """The module.

    Args:
        driver: that engines allocate from and run on.
        name: `tensorrt` or `tensorrt_rtx`, which prepares an engine in another way.
    """
    module = ModuleType(name)
    is_rtx, loaded = name == "tensorrt_rtx", []

    class Logger:
        ERROR = 0

        def __init__(self, level):
            pass

    class Runtime:
        def __init__(self, logger):
            assert isinstance(logger, Logger)

        def deserialize_cuda_engine(self, content):
            assert loaded, "the plugin is loaded before engines"
            handle = driver.allocate("engine")
            return None if handle is None else engine_class(handle, content)

    class Engine:
        device_memory_size_v2 = _WORKSPACE_BYTES

        def __init__(self, handle, content):
            self._handle, self.model = handle, onnx.load_from_string(content)
            self._run = onnxruntime.InferenceSession(content).run
            graph = self.model.graph
            self.tensors = {
                value.name: (value, mode)
                for mode, values in ((Mode.INPUT, graph.input), (Mode.OUTPUT, graph.output))
                for value in values
            }
            self.num_io_tensors = len(self.tensors)

        def __del__(self):
            driver.free(self._handle)

        def get_tensor_name(self, k):
            return list(self.tensors)[k]

        def get_tensor_mode(self, name):
            return self.tensors[name][1]

        def get_tensor_dtype(self, name):
            kind = self.tensors[name][0].type.tensor_type.elem_type
            return SimpleNamespace(name=onnx.TensorProto.DataType.Name(kind))

        def get_tensor_location(self, name):
            return Place.DEVICE

        def create_execution_context(self, given):
            ours = given.ours if is_rtx else given
            assert ours == "user managed"
            handle = driver.allocate("execution context")
            return None if handle is None else Context(self, handle)

    class RtxEngine(Engine):
        def create_runtime_config(self):
            def take(ours):
                config.ours = ours

            config = SimpleNamespace(set_execution_context_allocation_strategy=take)
            return config

    class Context:
        def __init__(self, engine, handle):
            self._engine, self._handle = engine, handle
            self._shapes, self._addresses, self._workspace = {}, {}, None
            self._has_run = False

        def __del__(self):
            driver.free(self._handle)

        def set_device_memory(self, address, size):
            assert address % 256 == 0
            assert size >= _WORKSPACE_BYTES
            driver.at(address, size)
            self._workspace = address

        def set_input_shape(self, name, shape):
            own = self._sizes(name)
            if len(own) != len(shape) or any(
                a not in (-1, b) for a, b in zip(own, shape, strict=True)
            ):
                return False
            assert name not in self._shapes, "what was recorded of it is not valid any more"
            self._shapes[name] = shape
            return True

        def set_tensor_address(self, name, address):
            assert address % 256 == 0
            self._addresses[name] = address
            return True

        def get_tensor_shape(self, name):
            """With the batch of the inputs in each open axis: these graphs have no other."""
            batch = {
                size
                for given, shape in self._shapes.items()
                for own, size in zip(self._sizes(given), shape, strict=True)
                if own == -1
            }
            n = batch.pop() if batch else -1
            return [n if size == -1 else size for size in self._sizes(name)]

        def execute_async_v3(self, stream):
            assert self._workspace is not None
            assert self._has_run or not driver.is_recording(stream), "kernels are loaded first"
            self._has_run = True
            if not module.runs:
                return False
            arrays = {name: self._place(name) for name in self._engine.tensors}
            driver.enqueue(stream, lambda: self._run(arrays))
            return True

        def _run(self, arrays):
            modes = {name: mode for name, (_, mode) in self._engine.tensors.items()}
            given = {name: arrays[name]() for name in arrays if modes[name] is Mode.INPUT}
            names = [name for name in arrays if modes[name] is Mode.OUTPUT]
            for name, array in zip(names, self._engine._run(names, given), strict=True):
                arrays[name]()[...] = array

        def _place(self, name):
            """What is at the address now, whenever the work is done."""
            shape, address = tuple(self.get_tensor_shape(name)), self._addresses[name]
            dtype = np.dtype(_NUMPY[self._engine.get_tensor_dtype(name).name])
            n_bytes = int(np.prod(shape)) * dtype.itemsize
            return lambda: np.frombuffer(driver.at(address, n_bytes), dtype).reshape(shape)

        def _sizes(self, name):
            dims = self._engine.tensors[name][0].type.tensor_type.shape.dim
            return [dim.dim_value or -1 for dim in dims]

    class Registry:
        def load_library(self, path):
            """None for what is there, as TensorRT does."""
            loaded.append(path)
            return object() if len(loaded) == 1 else None

    engine_class = RtxEngine if is_rtx else Engine
    registry = Registry()
    module.__dict__.update(
        runs=True, Logger=Logger, Runtime=Runtime, get_plugin_registry=lambda: registry,
        ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="user managed"),
        DynamicShapesKernelSpecializationStrategy=SimpleNamespace(EAGER="eager"),
    )  # fmt: skip
    return module


def still_there(driver):
    """What was not freed, by kind; it must be freed without a search for cycles."""
    return sorted(
        str(what[0] if isinstance(what, tuple) else what) for what in driver.live.values()
    )
