"""Actions from the parts of a flow-matching policy, whatever runs them."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from einsort_vla.errors import CheckpointError, ShapeError
from einsort_vla.runtime.manifest import DENOISE_STEP, PREFIX, VELOCITY, VISION, Value

Arrays = Mapping[str, np.ndarray]


class Session(Protocol):
    """Runs the graphs of a bundle."""

    def run(self, part: str, inputs: Arrays) -> dict[str, np.ndarray]:
        """Outputs of a part by name; inputs it does not take are left out."""
        ...


def sample_actions(session: Session, inputs: Arrays, n_steps: int) -> np.ndarray:
    """(batch, chunk_size, action) float32: Euler's method from time 1 to 0, in float32.

    Args:
        session: runs the parts.
        inputs: what the manifest lists for `vision` and `prefix`, and `noise`, the actions at time
            1, (batch, chunk_size, action) float32.
        n_steps: of the flow.
    """
    known = dict(inputs)
    known |= session.run(VISION, known)
    known |= session.run(PREFIX, known)
    actions = np.asarray(inputs["noise"], np.float32)
    for k in range(n_steps):
        time = np.full(len(actions), 1.0 - k / n_steps, np.float32)
        step = session.run(DENOISE_STEP, {**known, "noisy_actions": actions, "time": time})
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
        ShapeError: one is missing, empty or of another shape.
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
    return found


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
