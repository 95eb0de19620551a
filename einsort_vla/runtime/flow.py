"""Actions from the parts of a flow-matching policy, whatever runs them."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from einsort_vla.errors import CheckpointError, ShapeError
from einsort_vla.runtime.manifest import (
    DENOISE_STEP,
    NOISE,
    NOISY_ACTIONS,
    PREFIX,
    TIME,
    VELOCITY,
    VISION,
    Value,
)

Arrays = Mapping[str, np.ndarray]
MOVED_ACTIONS = "moved_actions"  # of an engine's step: the noisy actions of the next one


class Session(Protocol):
    """Runs the graphs of a bundle one by one."""

    def run(self, part: str, inputs: Arrays) -> dict[str, np.ndarray]:
        """Outputs of a part by name; inputs it does not take are left out."""
        ...


@runtime_checkable
class ChunkSession(Protocol):
    """Makes whole chunks by itself."""

    @property
    def is_one_graph(self) -> bool:
        """Whether a chunk is one graph of CUDA, not launch after launch."""
        ...

    def chunk(self, inputs: Arrays) -> np.ndarray:
        """Actions (batch, chunk_size, action) float32, from what the manifest's chunk lists."""
        ...

    def part_seconds(self, inputs: Arrays) -> list[tuple[str, float]]:
        """Each part as often as a chunk runs it, in order, with what it takes by itself."""
        ...


def sample_actions(session: Session | ChunkSession, inputs: Arrays, n_steps: int) -> np.ndarray:
    """(batch, chunk_size, action) float32: Euler's method from time 1 to 0, in float32.

    Args:
        session: runs the parts, or the chunk.
        inputs: what the manifest lists for `vision` and `prefix`, and `noise`, the actions at time
            1, (batch, chunk_size, action) float32.
        n_steps: of the flow. A `ChunkSession` takes its manifest's.
    """
    if isinstance(session, ChunkSession):
        return session.chunk(inputs)
    known = dict(inputs)
    known |= session.run(VISION, known)
    known |= session.run(PREFIX, known)
    actions = np.asarray(inputs[NOISE], np.float32)
    for k in range(n_steps):
        time = np.full(len(actions), 1.0 - k / n_steps, np.float32)
        step = session.run(DENOISE_STEP, {**known, NOISY_ACTIONS: actions, TIME: time})
        actions = actions + np.float32(-1 / n_steps) * step[VELOCITY]
    return actions


def checked(
    part: str, expected: Sequence[Value], inputs: Arrays, most: int
) -> dict[str, np.ndarray]:
    """The inputs of a part, in its types.

    Args:
        part: its name, for messages.
        expected: `inputs` of the part in the manifest; an axis of size None is an open batch.
        inputs: arrays by name.
        most: rows of the largest batch.

    Raises:
        ShapeError: one is missing, empty or of another shape, or they are of several batches.
    """
    found: dict[str, np.ndarray] = {}
    for entry in expected:
        name, shape = entry.name, entry.shape
        if name not in inputs:
            raise ShapeError(f"{part} needs the input {name!r}, which is not given.")
        array = np.asarray(inputs[name])
        if not _fits(array, entry, most):
            raise ShapeError(
                f"{part}: {name} has shape {list(array.shape)}; by manifest.json it must be "
                f"{[size or f'1 to {most}' for size in shape]}, and not be empty."
            )
        found[name] = np.ascontiguousarray(array, dtype=entry.dtype)
    rows = {value.name: n_rows([value], found, most) for value in expected if None in value.shape}
    if len(set(rows.values())) > 1:
        told = ", ".join(f"{name} has {n}" for name, n in rows.items())
        raise ShapeError(f"{part}: all inputs must have one batch, and {told} rows.")
    return found


def n_rows(described: Sequence[Value], arrays: Arrays, fixed: int) -> int:
    """Rows of the open batch of arrays that were checked; `fixed` if none is open."""
    sizes = (
        array_size
        for value in described
        for size, array_size in zip(value.shape, arrays[value.name].shape)  # noqa: B905
        if size is None
    )
    return next(sizes, fixed)


def check_outputs(part: str, described: Sequence[Value], found: Arrays, most: int) -> None:
    """Check that a graph gave what its manifest says; arguments as of `checked`.

    Raises:
        CheckpointError: it did not.
    """
    for entry in described:
        if not _fits(found[entry.name], entry, most):
            raise CheckpointError(
                f"{part}: its graph gives {entry.name} of shape {list(found[entry.name].shape)}, "
                f"the manifest says {list(entry.shape)}. Export the policy again."
            )


def _fits(array: np.ndarray, entry: Value, most: int) -> bool:
    """Whether an array has the axes of an entry, and is not empty."""
    axes = zip(entry.shape, array.shape)  # noqa: B905  Python 3.10
    same = all(size == own or (size is None and own <= most) for size, own in axes)
    return same and array.ndim == len(entry.shape) and array.size > 0
