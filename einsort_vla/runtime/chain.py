"""The parts of a policy, one after the other on the GPU, for one number of observations."""

import logging
import time
from collections.abc import Callable
from typing import Any

from einsort_vla.errors import CheckpointError, EngineError
from einsort_vla.runtime import gpu
from einsort_vla.runtime.buffers import Plan, engine_outputs, n_bytes, shape_of
from einsort_vla.runtime.flow import MOVED_ACTIONS
from einsort_vla.runtime.manifest import (
    ACTIONS,
    DENOISE_STEP,
    NOISE,
    NOISY_ACTIONS,
    PREFIX,
    TIME,
    VISION,
    Manifest,
)

log = logging.getLogger(__name__)


class Chain:
    """Shapes and addresses are set once, by `bind`, and stay.

    That is why each number of observations has execution contexts of its own: what CUDA recorded of
    one is not valid any more once its shapes have changed.

    Args:
        manifest: of the bundle.
        plan: places within the blocks.
        device: address of the GPU's block; the times of the steps are there already.
        host: address of the host's, which is pinned.
        n_rows: observations at once.
    """

    def __init__(self, manifest: Manifest, plan: Plan, device: int, host: int, n_rows: int) -> None:
        self._manifest, self._plan, self.n_rows = manifest, plan, n_rows
        self._device, self._host = device, host
        self._contexts: dict[str, Any] = {}
        self._graph: gpu.Graph | None = None

    def bind(self, part: str, context: Any) -> None:
        """Take an execution context, which nobody else uses, for a part.

        Raises:
            CheckpointError: its engine has other shapes than the manifest.
        """
        self._contexts[part] = context
        described = self._manifest.parts[part]
        for value in described.inputs:
            shape = shape_of(value, self.n_rows)
            if not context.set_input_shape(value.name, shape):
                raise _other_shape(part, value.name, context, shape)
        for value in (*described.inputs, *engine_outputs(part, described)):
            shape = shape_of(value, self.n_rows)
            if tuple(context.get_tensor_shape(value.name)) != shape:
                raise _other_shape(part, value.name, context, shape)
            if not context.set_tensor_address(value.name, self._address(value.name)):
                raise EngineError(f"TensorRT takes no address for {value.name} of {part}.")

    def warm_up(self, stream: gpu.Stream) -> None:
        """Run a chunk as the first, which loads and allocates what is needed; then record it.

        Raises:
            EngineError: it cannot be run.
        """
        self._enqueue(stream)
        stream.wait()
        try:
            self._graph = stream.record(lambda: self._enqueue(stream))
            self._graph.launch(stream)  # the first launch of a graph loads it
        except EngineError as error:
            log.warning(
                "CUDA cannot record a chunk as one graph, so its parts are launched one by one, "
                "which takes the host's time at each: %s", error,
            )  # fmt: skip
            self._drop_graph()
        stream.wait()

    def start(self, stream: gpu.Stream) -> None:
        """Enqueue a whole chunk, from what lies in the host's block to the actions there."""
        if self._graph is None:
            self._enqueue(stream)
        else:
            self._graph.launch(stream)

    def part_seconds(self, stream: gpu.Stream) -> list[tuple[str, float]]:
        """Run a chunk part by part, each waited for: a part with what is copied before it."""
        found: list[tuple[str, float]] = []
        started = time.perf_counter()

        def has_run(part: str) -> None:
            nonlocal started
            stream.wait()
            before, started = started, time.perf_counter()
            found.append((part, started - before))

        self._enqueue(stream, has_run)
        stream.wait()
        return found

    @property
    def is_one_graph(self) -> bool:
        return self._graph is not None

    def close(self) -> None:
        """Free what it has; the stream must be idle."""
        self._drop_graph()
        self._contexts.clear()

    def _drop_graph(self) -> None:
        if self._graph is not None:
            self._graph.close()
        self._graph = None

    def _enqueue(
        self, stream: gpu.Stream, has_run: Callable[[str], None] = lambda part: None
    ) -> None:
        """Copy in, run, copy out. Between the steps of the flow the moved actions become the noisy
        ones: engines keep their addresses, and the actions are the smallest value there is."""
        plan = self._plan
        for value in plan.given:
            name = NOISY_ACTIONS if value.name == NOISE else value.name
            host = self._host + plan.host[value.name]
            stream.copy_in(self._address(name), host, n_bytes(value, self.n_rows))
        moved, n_bytes_moved = self._address(MOVED_ACTIONS), self._bytes(MOVED_ACTIONS)
        self._run(VISION, stream, has_run)
        self._run(PREFIX, stream, has_run)
        for k in range(plan.n_steps):
            now = self._device + plan.times + k * plan.time_stride
            stream.copy(self._address(TIME), now, self._bytes(TIME))
            if k:
                stream.copy(self._address(NOISY_ACTIONS), moved, n_bytes_moved)
            self._run(DENOISE_STEP, stream, has_run)
        stream.copy_out(self._host + plan.host[ACTIONS], moved, n_bytes_moved)

    def _run(self, part: str, stream: gpu.Stream, has_run: Callable[[str], None]) -> None:
        if not self._contexts[part].execute_async_v3(stream.handle):
            raise EngineError(f"TensorRT could not run {part}; its log says why.")
        has_run(part)

    def _address(self, name: str) -> int:
        return self._device + self._plan.device[name]

    def _bytes(self, name: str) -> int:
        return n_bytes(self._plan.values[name], self.n_rows)


def _other_shape(part: str, name: str, context: Any, wanted: tuple[int, ...]) -> CheckpointError:
    return CheckpointError(
        f"the engine of {part} has {name} of shape {list(context.get_tensor_shape(name))}, and by "
        f"manifest.json it is {list(wanted)}. Remove the folder engines and build again."
    )
