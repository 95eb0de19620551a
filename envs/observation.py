"""What the policy sees, under LeRobot's keys."""

from typing import Any

from envs.simulator import CAMERAS, Simulator

PICTURE_KEYS = dict(
    zip(("observation.images.image", "observation.images.image2"), CAMERAS, strict=True)
)
STATE_KEY = "observation.state"
TASK_KEY = "task"


def observe(simulator: Simulator) -> dict[str, Any]:
    """Both pictures (H, W, 3) uint8, the state (8,) float32 and the sentence, of this moment."""
    pictures = {key: simulator.render(camera) for key, camera in PICTURE_KEYS.items()}
    return {
        **pictures,
        STATE_KEY: simulator.proprioception(),
        TASK_KEY: simulator.task.language,
    }
