"""A policy on an NVIDIA GPU, by TensorRT or TensorRT-RTX."""

import contextlib
import threading
import traceback
import weakref
from collections.abc import Iterator

import numpy as np

from einsort_vla.errors import CheckpointError, EngineError
from einsort_vla.runtime import gpu
from einsort_vla.runtime.buffers import plan_buffers, shape_of
from einsort_vla.runtime.bundle import Bundle
from einsort_vla.runtime.chain import Chain
from einsort_vla.runtime.engine import (
    Receipt,
    find_builder,
    read_receipt,
    were_built_here,
    why_stale,
)
from einsort_vla.runtime.flow import Arrays, checked, n_rows
from einsort_vla.runtime.loading import LoadedEngines
from einsort_vla.runtime.manifest import CHUNK, Value


class EngineSession:
    """Runs a policy on the first GPU, with all memory taken when it is opened.

    What one part gives and another takes never leaves the GPU. A chunk is copied in, started and
    waited for once; where the driver allows, it is one graph of CUDA. Sessions share nothing but
    the GPU's context and the plugin; a session does one thing at a time, from any thread.

    After an error on the GPU the session is closed, and says so; one in the inputs leaves it open.
    It is closed by `close`, as a context manager, or once nobody refers to it.

    The bundle's plugin and its engines are code, which is loaded into this process.

    Raises:
        CheckpointError: there are no engines, or they do not fit the bundle or this device; or the
            bundle is signed, and its engines were built elsewhere.
        EngineError: the GPU has too little memory, or TensorRT cannot load or run the engines.
        MissingDependency: TensorRT, a driver or a GPU is missing.
    """

    def __init__(self, bundle: Bundle) -> None:
        builder, receipt = _usable_engines(bundle)
        self._bundle, self._manifest = bundle, bundle.manifest
        self._plan = plan_buffers(bundle.manifest)
        self._lock = threading.Lock()
        self._why_closed: str | None = None
        self._chains: dict[int, Chain] = {}  # by number of observations
        resources = contextlib.ExitStack()
        self._free = weakref.finalize(self, resources.close)
        try:
            self._open(resources, builder, receipt)
        except BaseException as error:
            self._free()
            traceback.clear_frames(error.__traceback__)  # else engines live as long as the error
            raise

    def chunk(self, inputs: Arrays) -> np.ndarray:
        """See `ChunkSession.chunk`.

        Raises:
            ShapeError: an input is missing, empty or of another shape.
            EngineError: the GPU failed, now or before, or the session was closed.
        """
        with self._using(inputs) as chain:
            chain.start(self._stream)
            self._stream.wait()
            return self._host_array(self._manifest.chunk.outputs[0], chain.n_rows).copy()

    def part_seconds(self, inputs: Arrays) -> list[tuple[str, float]]:
        """See `ChunkSession.part_seconds`, and for errors `chunk`.

        Parts are launched and waited for one by one, which takes longer than a chunk.
        """
        with self._using(inputs) as chain:
            return chain.part_seconds(self._stream)

    @property
    def is_one_graph(self) -> bool:
        """Whether CUDA recorded a chunk of each number of observations that there was."""
        chains = self._chains.values()
        return bool(chains) and all(chain.is_one_graph for chain in chains)

    def close(self) -> None:
        """Free all memory. Closing again does nothing."""
        with self._lock:
            self._end("it was closed")

    def __enter__(self) -> "EngineSession":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _using(self, inputs: Arrays) -> Iterator[Chain]:
        """The chain for inputs that lie ready for it, with nobody else at work.

        Whatever goes wrong within it ends the session: the GPU may still be writing, and most of
        its faults stay.
        """
        described, most = self._manifest.chunk.inputs, self._manifest.batch.size
        given = checked(CHUNK, described, inputs, most)
        rows = n_rows(described, given, most)
        with self._lock:
            if self._why_closed is not None:
                raise EngineError(
                    f"the session of {self._bundle.folder} is closed: {self._why_closed} Open "
                    "another one."
                )
            try:
                gpu.enter()
                for value in described:
                    np.copyto(self._host_array(value, rows), given[value.name])
                yield self._chain(rows)
            except BaseException as error:
                self._end(f"it failed: {str(error) or type(error).__name__}")
                traceback.clear_frames(error.__traceback__)
                raise

    def _end(self, why: str) -> None:
        self._why_closed = self._why_closed or why.removesuffix(".") + "."
        self._free()

    def _open(self, resources: contextlib.ExitStack, builder: str, receipt: Receipt) -> None:
        """Load the engines, take all memory, and run one chunk. What is made first is freed last.

        `resources` refers to nothing that refers to the session, which else would live on.
        """
        gpu.enter()
        self._engines = LoadedEngines(builder, self._bundle, receipt)
        resources.callback(self._engines.close)
        self._stream = gpu.Stream()
        resources.callback(self._stream.close)
        # One part runs at a time, so that they can share it.
        self._workspace = gpu.Memory(self._engines.workspace_bytes)
        resources.callback(self._workspace.close)
        self._device = gpu.Memory(self._plan.device_bytes)
        resources.callback(self._device.close)
        self._pinned = gpu.PinnedMemory(self._plan.host_bytes)
        resources.callback(self._pinned.close)
        resources.callback(_close_all, self._chains, self._stream)
        self._write_times()
        batch = self._manifest.batch
        self._chain(1 if batch.dynamic else batch.size)

    def _chain(self, rows: int) -> Chain:
        """That of so many observations; at their first time it is made, which takes a while."""
        if rows not in self._chains:
            places = self._device.address, self._pinned.address
            chain = self._chains[rows] = Chain(self._manifest, self._plan, *places, rows)
            for part in self._manifest.parts:
                chain.bind(part, self._engines.context(part, self._workspace.address))
            chain.warm_up(self._stream)
        return self._chains[rows]

    def _write_times(self) -> None:
        """The time of each step, for all observations, to where the chain finds it."""
        plan = self._plan
        times = np.empty((plan.n_steps, plan.time_stride // 4), np.float32)
        times[:] = (1.0 - np.arange(plan.n_steps) / plan.n_steps)[:, None]
        address = self._device.address + plan.times
        self._stream.copy_in(address, times.ctypes.data, times.nbytes)
        self._stream.wait()

    def _host_array(self, value: Value, rows: int) -> np.ndarray:
        return self._pinned.array(self._plan.host[value.name], shape_of(value, rows), value.dtype)


def _usable_engines(bundle: Bundle) -> tuple[str, Receipt]:
    """What built them, and the receipt, if they fit bundle and device; errors as of the session."""
    builder, receipt = find_builder(bundle), read_receipt(bundle)
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
    _check_driver(bundle)
    return builder, receipt


def _check_driver(bundle: Bundle) -> None:
    """Kernels run on drivers of their major release and of later ones."""
    kernels, driver = bundle.manifest.target.cuda, gpu.cuda_release()
    major = (kernels or "").partition(".")[0]
    if major.isdecimal() and driver[0] < int(major):
        raise CheckpointError(
            f"the kernels of {bundle.folder} are of CUDA {kernels}, and the driver here is of "
            f"{driver[0]}.{driver[1]}. Update the driver."
        )


def _close_all(chains: dict[int, Chain], stream: gpu.Stream) -> None:
    stream.settle()
    for chain in chains.values():
        chain.close()
    chains.clear()
