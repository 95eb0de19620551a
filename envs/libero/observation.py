"""What the policy sees, under LeRobot's keys."""

from contextlib import nullcontext
from typing import Any

import numpy as np
from PIL import Image

from einsort_vla.runtime.observation import STATE_KEY, TASK_KEY
from envs.environment import Features
from envs.libero.simulator import CAMERAS, Simulator

PICTURE_KEYS = dict(
    zip(("observation.images.image", "observation.images.image2"), CAMERAS, strict=True)
)
FEATURES = Features(tuple(PICTURE_KEYS), state_size=8, action_size=7, gripper=6)


def observe(
    simulator: Simulator, shown_shift: dict[str, np.ndarray] | None = None
) -> dict[str, Any]:
    """Both pictures (size, size, 3) uint8, the state (8,) float32 and the sentence, of this moment.

    `shown_shift` moves objects by (2,) metres in the pictures alone.
    """
    state = simulator.proprioception()
    with simulator.restored() if shown_shift else nullcontext():
        simulator.shift(shown_shift or {})
        pictures = {
            key: _resized(simulator.render(camera), simulator.protocol.shown_px)
            for key, camera in PICTURE_KEYS.items()
        }
    return {**pictures, STATE_KEY: state, TASK_KEY: simulator.task.language}


def _resized(picture: np.ndarray, size_px: int) -> np.ndarray:
    if len(picture) == size_px:
        return picture
    return np.asarray(
        Image.fromarray(picture).resize((size_px, size_px), Image.Resampling.BILINEAR)
    )
