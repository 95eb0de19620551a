"""A CUDA driver without a GPU: the calls that `gpu` makes, by their C types, counted by name.

Work is done only when its stream is waited for, so that whatever is not waited for, or is changed
before, shows. Addresses of the GPU are no addresses of this process.
"""

# ruff: noqa: N802  the driver's own names

import ctypes
from collections import Counter
from types import SimpleNamespace

from einsort_vla.runtime import gpu

OUT_OF_MEMORY, ILLEGAL_ADDRESS, CAPTURE_INVALIDATED = 2, 700, 901
_NAMES = {
    OUT_OF_MEMORY: b"CUDA_ERROR_OUT_OF_MEMORY",
    ILLEGAL_ADDRESS: b"CUDA_ERROR_ILLEGAL_ADDRESS",
    CAPTURE_INVALIDATED: b"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
}
_FIRST_ADDRESS = 2**52  # no process has memory there


class EmulatedDriver:
    """One GPU.

    Attributes:
        calls: how often each function was called.
        copied: bytes by direction (`HtoD`, `DtoH`, `DtoD`), of copies that were done.
        live: all that was allocated and not freed, by handle.
        failing: the number of the allocation that finds no memory, counted from 1.
        records: whether work can be recorded as a graph.
        fault: an error that every call gives from now on, once the GPU has worked.
        capability: of the GPU, times ten.
    """

    def __init__(self):
        self.calls, self.copied, self.live = Counter(), Counter(), {}
        self.failing, self.n_allocated, self.records = None, 0, True
        self.fault = self._status = 0
        self.capability, self.bugs = 89, []
        self._memory, self._next = {}, _FIRST_ADDRESS
        self._pending, self._recording, self._recorded = {}, {}, {}
        self._loaded = set()  # graphs that were launched

    def library(self, lacks=()):
        """What `ctypes.CDLL` gives."""
        names = [name for name in gpu.SIGNATURES if name not in lacks]
        return SimpleNamespace(**{name: self._function(name) for name in names})

    def allocate(self, what):
        """A handle; None if there is no memory."""
        if self._is_exhausted():
            return None
        self._next += 2**32
        self.live[self._next] = (what,)
        return self._next

    def _is_exhausted(self):
        self.n_allocated += 1
        return self.n_allocated == self.failing

    def free(self, handle):
        """What is freed twice, or never was, is a bug."""
        if self.live.pop(handle, None) is None:
            raise AssertionError(f"{handle} is not allocated")
        self._memory.pop(handle, None)
        self._recorded.pop(handle, None)

    def at(self, address, n_bytes):
        """Bytes of the GPU that can be changed; a bug if they are not of one allocation."""
        for start, memory in self._memory.items():
            if start <= address and address + n_bytes <= start + len(memory):
                return memoryview(memory)[address - start :][:n_bytes]
        raise AssertionError(f"{n_bytes} bytes at {address} are not allocated")

    def enqueue(self, stream, work):
        """Put work into a stream, or into what it records."""
        self._recording.get(stream, self._pending[stream]).append(work)

    def is_recording(self, stream):
        return stream in self._recording

    def _function(self, name):
        called = getattr(self, name)

        def counted(*arguments):
            self.calls[name] += 1
            try:
                return self._status or called(*arguments) or 0
            except BaseException as bug:  # ctypes would print it, and go on
                self.bugs.append((name, bug))
                return 999

        if name.startswith("cuGetErrorName"):
            counted = called
        return ctypes.CFUNCTYPE(ctypes.c_int, *gpu.SIGNATURES[name])(counted)

    def _make(self, pointer, what):
        handle = self.allocate(what)
        if handle is None:
            return OUT_OF_MEMORY
        pointer[0] = handle
        return 0

    def _copy(self, kind, work, stream):
        def done():
            self.copied[kind] += work()

        self.enqueue(stream, done)

    def cuInit(self, flags):
        assert flags == 0

    def cuDriverGetVersion(self, version):
        version[0] = 12060

    def cuGetErrorName(self, status, name):
        name[0] = _NAMES.get(status, b"CUDA_ERROR_UNKNOWN")
        return 0

    def cuDeviceGet(self, device, ordinal):
        device[0] = ordinal

    def cuDeviceGetName(self, name, size, device):
        ctypes.memmove(name, b"Emulated\0", 9)

    def cuDeviceGetAttribute(self, value, attribute, device):
        value[0] = {75: self.capability // 10, 76: self.capability % 10}[attribute]

    def cuDevicePrimaryCtxRetain(self, context, device):
        context[0] = 1

    def cuCtxSetCurrent(self, context):
        assert context == 1

    def cuMemGetInfo_v2(self, free, total):
        free[0], total[0] = 10**6, 10**9

    def cuMemAlloc_v2(self, pointer, n_bytes):
        status = self._make(pointer, "memory")
        if not status:
            self._memory[pointer[0]] = bytearray(b"\xff" * n_bytes)  # of floats: no number
        return status

    def cuMemFree_v2(self, address):
        self.free(address)

    def cuMemHostAlloc(self, pointer, n_bytes, flags):
        handle = self.allocate("pinned memory")
        if handle is None:
            return OUT_OF_MEMORY
        place = ctypes.create_string_buffer(b"\xff" * n_bytes, n_bytes)
        pointer[0] = address = ctypes.addressof(place)
        self.live[address] = (*self.live.pop(handle), place)
        return 0

    def cuMemFreeHost(self, address):
        self.free(address)

    def cuMemcpyHtoDAsync_v2(self, device, host, n_bytes, stream):
        def work():
            self.at(device, n_bytes)[:] = ctypes.string_at(host, n_bytes)
            return n_bytes

        self._copy("HtoD", work, stream)

    def cuMemcpyDtoHAsync_v2(self, host, device, n_bytes, stream):
        def work():
            ctypes.memmove(host, bytes(self.at(device, n_bytes)), n_bytes)
            return n_bytes

        self._copy("DtoH", work, stream)

    def cuMemcpyDtoDAsync_v2(self, to, source, n_bytes, stream):
        def work():
            self.at(to, n_bytes)[:] = bytes(self.at(source, n_bytes))
            return n_bytes

        self._copy("DtoD", work, stream)

    def cuStreamCreate(self, stream, flags):
        assert flags == 1  # the default stream's order would bind sessions to each other
        status = self._make(stream, "stream")
        if not status:
            self._pending[stream[0]] = []
        return status

    def cuStreamDestroy_v2(self, stream):
        assert not self._pending.pop(stream)
        self.free(stream)

    def cuStreamSynchronize(self, stream):
        assert stream not in self._recording
        work, self._pending[stream] = self._pending[stream], []
        for item in work:
            item()
        self._status = self.fault
        return self._status

    def cuStreamBeginCapture_v2(self, stream, mode):
        assert mode == 1
        assert stream not in self._recording
        self._recording[stream] = []

    def cuStreamEndCapture(self, stream, graph):
        work = self._recording.pop(stream)
        if not self.records:
            return CAPTURE_INVALIDATED
        status = self._make(graph, "graph")
        if not status:
            self._recorded[graph[0]] = work
        return status

    def cuGraphInstantiateWithFlags(self, executable, graph, flags):
        assert flags == 0
        status = self._make(executable, "executable graph")
        if not status:
            self._recorded[executable[0]] = list(self._recorded[graph])
        return status

    def cuGraphLaunch(self, executable, stream):
        assert executable in self.live
        if executable not in self._loaded and self._is_exhausted():
            return OUT_OF_MEMORY
        self._loaded.add(executable)
        self._pending[stream] += self._recorded[executable]
        return 0

    def cuGraphExecDestroy(self, executable):
        self.free(executable)

    def cuGraphDestroy(self, graph):
        self.free(graph)
