"""What a policy is shown, under LeRobot's keys."""

from collections.abc import Iterable
from typing import Any

STATE_KEY = "observation.state"
TASK_KEY = "task"
_PICTURES = "observation.images."
_ONE_PICTURE = "observation.image"  # of policies with one camera
Observation = dict[str, Any]
"""observation.images.* or observation.image (H, W, 3) uint8, observation.state (n,) float, task
str."""


def is_picture(key: str) -> bool:
    """Whether a key is that of a camera."""
    return key == _ONE_PICTURE or key.startswith(_PICTURES)


def needed_pictures(keys: Iterable[str], empty_cameras: int) -> list[str]:
    """Those of a policy's cameras that it must be shown.

    Args:
        keys: of all its pictures.
        empty_cameras: of its config; LeRobot adds so many cameras that were there when the base
            model was trained, and masks them, since no robot has them.
    """
    masked = {f"{_PICTURES}empty_camera_{k}" for k in range(empty_cameras)}
    return [key for key in keys if key not in masked]
