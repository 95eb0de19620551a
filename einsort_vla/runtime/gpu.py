"""The CUDA driver, as far as running an engine needs it: by ctypes, no toolkit."""

import ctypes
import functools

from einsort_vla.errors import MissingDependency, UsageError

_ADDRESS, _HOST, _SIZE = ctypes.c_uint64, ctypes.c_void_p, ctypes.c_size_t
_ARGUMENTS = {
    "cuMemAlloc_v2": (_HOST, _SIZE), "cuMemFree_v2": (_ADDRESS,),
    "cuMemcpyHtoD_v2": (_ADDRESS, _HOST, _SIZE), "cuMemcpyDtoH_v2": (_HOST, _ADDRESS, _SIZE),
}  # fmt: skip
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


@functools.lru_cache(maxsize=1)
def _driver() -> tuple[ctypes.CDLL, ctypes.c_void_p]:
    """The driver, and a context on the first GPU.

    Raises:
        MissingDependency: there is no driver or no GPU.
    """
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise MissingDependency(f"there is no CUDA driver here: {error}.") from error
    context, device = ctypes.c_void_p(), ctypes.c_int()
    for status in (cuda.cuInit(0), cuda.cuDeviceGet(ctypes.byref(device), 0)):
        if status:
            raise MissingDependency(f"there is no CUDA device here (driver error {status}).")
    check(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device), "a context")
    for function, kinds in _ARGUMENTS.items():
        getattr(cuda, function).argtypes = kinds
    return cuda, context


def enter() -> ctypes.CDLL:
    """The driver, with the GPU's context made that of this thread.

    Raises:
        MissingDependency: there is no driver or no GPU.
    """
    cuda, context = _driver()
    check(cuda.cuCtxSetCurrent(context), "a context")
    return cuda


def device_name() -> str:
    """Of the first GPU."""
    name = ctypes.create_string_buffer(256)
    check(enter().cuDeviceGetName(name, len(name), 0), "the device's name")
    return name.value.decode()


def check(status: int, what: str) -> None:
    """Raise if a call of the driver failed.

    Raises:
        UsageError: it did.
    """
    if status:
        raise UsageError(f"the CUDA driver refused {what}: error {status}.")


def compute_capability() -> int:
    """Of the first GPU, times ten.

    Raises:
        MissingDependency: there is no driver or no GPU.
    """
    cuda, device, value = enter(), ctypes.c_int(), ctypes.c_int()
    check(cuda.cuDeviceGet(ctypes.byref(device), 0), "the device")
    found = []
    for attribute in (_MAJOR, _MINOR):
        check(cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device), "an attribute")
        found.append(value.value)
    return 10 * found[0] + found[1]


def used_bytes() -> int:
    """Memory of the GPU in use, by all processes."""
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    check(enter().cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)), "its memory's size")
    return total.value - free.value


class Memory:
    """Bytes on the GPU; freed with the object."""

    def __init__(self, n_bytes: int) -> None:
        self._pointer = ctypes.c_uint64()
        check(enter().cuMemAlloc_v2(ctypes.byref(self._pointer), max(n_bytes, 1)), "memory")
        self.n_bytes = n_bytes

    @property
    def address(self) -> int:
        return self._pointer.value

    def write(self, host: int) -> None:
        """Copy from an address of the host."""
        check(enter().cuMemcpyHtoD_v2(self._pointer, ctypes.c_void_p(host), self.n_bytes), "a copy")

    def read(self, host: int) -> None:
        """Copy to an address of the host, once all work is done."""
        check(enter().cuCtxSynchronize(), "to wait")
        check(enter().cuMemcpyDtoH_v2(ctypes.c_void_p(host), self._pointer, self.n_bytes), "a copy")

    def __del__(self) -> None:
        if self._pointer.value:
            enter().cuMemFree_v2(self._pointer)
