"""Actions from the parts of a flow-matching policy, whatever runs them."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from einsort_vla.errors import ShapeError

VISION, PREFIX, DENOISE_STEP = "vision", "prefix", "denoise_step"

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
        actions = actions + np.float32(-1 / n_steps) * step["velocity"]
    return actions


def checked(part: str, expected: list[dict], inputs: Arrays, most: int) -> dict[str, np.ndarray]:
    """The inputs of a part, in its types.

    Args:
        part: its name, for messages.
        expected: `inputs` of the part in the manifest; an axis of size None is an open batch.
        inputs: arrays by name.
        most: rows of the largest batch.

    Raises:
        ShapeError: one is missing, empty or of another shape.
    """
    found = {}
    for entry in expected:
        name, shape = entry["name"], entry["shape"]
        if name not in inputs:
            raise ShapeError(f"{part} needs the input {name!r}, which is not given.")
        array = np.asarray(inputs[name])
        fits = len(array.shape) == len(shape) and all(
            size == own or (size is None and own <= most)
            for size, own in zip(shape, array.shape)  # noqa: B905  Python 3.10
        )
        if not fits or not array.size:
            raise ShapeError(
                f"{part}: {name} has shape {list(array.shape)}, it must be "
                f"{[size or f'1 to {most}' for size in shape]}, and not be empty."
            )
        found[name] = np.ascontiguousarray(array, dtype=entry["dtype"])
    return found
