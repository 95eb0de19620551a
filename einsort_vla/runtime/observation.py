"""What a policy is shown, under LeRobot's keys."""

from typing import Any

STATE_KEY = "observation.state"
TASK_KEY = "task"
Observation = dict[str, Any]
"""observation.images.* (H, W, 3) uint8, observation.state (n,) float, task str."""
