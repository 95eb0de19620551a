"""The CUDA driver, as far as running engines needs it: by ctypes, no toolkit."""

import ctypes
import functools
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p
from typing import Any

import numpy as np

from einsort_vla.errors import EngineError, MissingDependency

# All that is called, with C's types; a status comes back.
SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuDriverGetVersion": (POINTER(c_int),),
    "cuGetErrorName": (c_int, POINTER(c_char_p)),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetName": (c_void_p, c_int, c_int),
    "cuDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cuDevicePrimaryCtxRetain": (POINTER(c_void_p), c_int),
    "cuCtxSetCurrent": (c_void_p,),
    "cuMemGetInfo_v2": (POINTER(c_size_t), POINTER(c_size_t)),
    "cuMemAlloc_v2": (POINTER(c_uint64), c_size_t),
    "cuMemFree_v2": (c_uint64,),
    "cuMemHostAlloc": (POINTER(c_void_p), c_size_t, c_uint),
    "cuMemFreeHost": (c_void_p,),
    "cuMemcpyHtoDAsync_v2": (c_uint64, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_uint64, c_size_t, c_void_p),
    "cuMemcpyDtoDAsync_v2": (c_uint64, c_uint64, c_size_t, c_void_p),
    "cuStreamCreate": (POINTER(c_void_p), c_uint),
    "cuStreamDestroy_v2": (c_void_p,),
    "cuStreamSynchronize": (c_void_p,),
    "cuStreamBeginCapture_v2": (c_void_p, c_int),
    "cuStreamEndCapture": (c_void_p, POINTER(c_void_p)),
    "cuGraphInstantiateWithFlags": (POINTER(c_void_p), c_void_p, ctypes.c_ulonglong),
    "cuGraphLaunch": (c_void_p, c_void_p),
    "cuGraphExecDestroy": (c_void_p,),
    "cuGraphDestroy": (c_void_p,),
}
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY
_OWN_ORDER = 1  # CU_STREAM_NON_BLOCKING: waits for no other stream of this process
# CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: what other threads allocate meanwhile ends no capture.
_THIS_THREAD = 1


@functools.lru_cache(maxsize=1)
def _driver() -> tuple[Any, c_void_p]:
    """The driver, and the first GPU's primary context, which TensorRT uses, too.

    Raises:
        MissingDependency: there is no driver or no GPU, or the driver is older than CUDA 12.
    """
    cuda = _library()
    for function, kinds in SIGNATURES.items():
        try:
            getattr(cuda, function).argtypes = kinds
        except AttributeError as error:
            raise MissingDependency(
                f"the CUDA driver here has no {function}: it is older than CUDA 12. Update it."
            ) from error
    context, device = c_void_p(), c_int()
    for status in (cuda.cuInit(0), cuda.cuDeviceGet(ctypes.byref(device), 0)):
        if status:
            raise MissingDependency(f"there is no CUDA device here ({_name(cuda, status)}).")
    if status := cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device):
        raise EngineError(f"the CUDA driver cannot use the GPU: {_name(cuda, status)}.")
    return cuda, context


def _library() -> Any:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise MissingDependency(f"there is no CUDA driver here: {error}.") from error


def _name(cuda: Any, status: int) -> str:
    name = c_char_p()
    cuda.cuGetErrorName(status, ctypes.byref(name))
    return f"{(name.value or b'an unknown error').decode()}, {status}"


def enter() -> None:
    """Make the GPU's context that of this thread, for what follows here and in TensorRT.

    Raises:
        MissingDependency: there is no driver or no GPU.
        EngineError: the GPU cannot be used any more.
    """
    _call("cuCtxSetCurrent", _driver()[1])


def _call(function: str, *arguments: Any) -> None:
    """Call the driver, in a thread that has entered.

    Raises:
        EngineError: the driver refused, or tells of an earlier fault.
    """
    cuda, _ = _driver()
    if status := getattr(cuda, function)(*arguments):
        raise EngineError(f"the CUDA driver failed in {function}: {_name(cuda, status)}.")


def _quietly(function: str, handle: Any) -> None:
    """Free or wait, from any thread. After a fault of the GPU all is gone with its context, and
    there is no error to tell of."""
    cuda, context = _driver()
    cuda.cuCtxSetCurrent(context)
    getattr(cuda, function)(handle)


def device_name() -> str:
    """Of the first GPU."""
    enter()
    name = ctypes.create_string_buffer(256)
    _call("cuDeviceGetName", name, len(name), 0)
    return name.value.decode()


def compute_capability() -> int:
    """Of the first GPU, times ten.

    Raises:
        MissingDependency: there is no driver or no GPU.
    """
    enter()
    device, major, minor = c_int(), c_int(), c_int()
    _call("cuDeviceGet", ctypes.byref(device), 0)
    for value, attribute in ((major, _MAJOR), (minor, _MINOR)):
        _call("cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
    return 10 * major.value + minor.value


def cuda_release() -> tuple[int, int]:
    """Of the driver: the newest whose programs it runs, such as (12, 6).

    Raises:
        MissingDependency: there is no driver or no GPU.
    """
    version = c_int()
    _call("cuDriverGetVersion", ctypes.byref(version))
    return version.value // 1000, version.value % 1000 // 10


def used_bytes() -> int:
    """Memory of the GPU in use, by all processes."""
    free, total = _memory_bytes()
    return total - free


def free_bytes() -> int:
    """Memory of the GPU that nobody uses."""
    return _memory_bytes()[0]


def _memory_bytes() -> tuple[int, int]:
    enter()
    free, total = c_size_t(), c_size_t()
    _call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    return free.value, total.value


class Memory:
    """Bytes on the GPU, at an address that is a multiple of 256.

    Raises:
        EngineError: there are not so many.
    """

    def __init__(self, n_bytes: int) -> None:
        enter()
        pointer = c_uint64()
        cuda, _ = _driver()
        status = cuda.cuMemAlloc_v2(ctypes.byref(pointer), max(n_bytes, 1))
        if status == _OUT_OF_MEMORY:
            raise EngineError(
                f"the GPU has no {n_bytes / 1e6:.1f} MB for the policy in one piece; "
                f"{free_bytes() / 1e6:.1f} MB are free. End what else uses it."
            )
        if status:
            raise EngineError(f"the CUDA driver gives no memory: {_name(cuda, status)}.")
        self.address = pointer.value

    def close(self) -> None:
        """Free it."""
        _quietly("cuMemFree_v2", self.address)


class PinnedMemory:
    """Bytes of the host that stay where they are, so that the GPU copies them by itself.

    They are zero at first.

    Raises:
        EngineError: there are not so many.
    """

    def __init__(self, n_bytes: int) -> None:
        enter()
        pointer = c_void_p()
        cuda, _ = _driver()
        if status := cuda.cuMemHostAlloc(ctypes.byref(pointer), max(n_bytes, 1), 0):
            raise EngineError(
                f"the CUDA driver cannot pin {n_bytes / 1e6:.1f} MB of this machine's memory: "
                f"{_name(cuda, status)}."
            )
        assert pointer.value is not None
        self.address = pointer.value
        ctypes.memset(self.address, 0, n_bytes)

    def array(self, offset: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """What lies at an offset; not to be used once it is closed."""
        n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        place = (ctypes.c_char * n_bytes).from_address(self.address + offset)
        return np.frombuffer(place, dtype).reshape(shape)

    def close(self) -> None:
        """Free it."""
        _quietly("cuMemFreeHost", self.address)


class Graph:
    """Work that a stream has recorded, to be started as a whole."""

    def __init__(self, recorded: c_void_p) -> None:
        self._handle = c_void_p()
        _call("cuGraphInstantiateWithFlags", ctypes.byref(self._handle), recorded, 0)

    def launch(self, stream: "Stream") -> None:
        """Enqueue all of it."""
        _call("cuGraphLaunch", self._handle, stream.handle)

    def close(self) -> None:
        """Free it."""
        _quietly("cuGraphExecDestroy", self._handle)


class Stream:
    """A queue of work for the GPU. All but `wait` return at once; faults may show only there.

    Its methods need a thread that has entered. All raise EngineError if the driver refuses.
    """

    def __init__(self) -> None:
        enter()
        handle = c_void_p()
        _call("cuStreamCreate", ctypes.byref(handle), _OWN_ORDER)
        assert handle.value is not None
        self.handle = handle.value

    def copy_in(self, device: int, host: int, n_bytes: int) -> None:
        """From an address of the host."""
        _call("cuMemcpyHtoDAsync_v2", device, host, n_bytes, self.handle)

    def copy_out(self, host: int, device: int, n_bytes: int) -> None:
        """To an address of the host."""
        _call("cuMemcpyDtoHAsync_v2", host, device, n_bytes, self.handle)

    def copy(self, to: int, source: int, n_bytes: int) -> None:
        """Within the GPU."""
        _call("cuMemcpyDtoDAsync_v2", to, source, n_bytes, self.handle)

    def wait(self) -> None:
        """Until all of it is done."""
        _call("cuStreamSynchronize", self.handle)

    def record(self, enqueue: Callable[[], None]) -> Graph:
        """What `enqueue` puts into this stream, as a graph; nothing of it is run."""
        _call("cuStreamBeginCapture_v2", self.handle, _THIS_THREAD)
        recorded = c_void_p()
        try:
            try:
                enqueue()
            except BaseException:  # an error of its own says more than that of the capture
                _driver()[0].cuStreamEndCapture(self.handle, ctypes.byref(recorded))
                raise
            _call("cuStreamEndCapture", self.handle, ctypes.byref(recorded))
            return Graph(recorded)
        finally:
            if recorded.value:
                _quietly("cuGraphDestroy", recorded)

    def settle(self) -> None:
        """Wait, whatever has become of the work."""
        _quietly("cuStreamSynchronize", self.handle)

    def close(self) -> None:
        """Free it."""
        _quietly("cuStreamDestroy_v2", self.handle)
