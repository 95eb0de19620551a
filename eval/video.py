"""Side-by-side MP4 of the same episode under several arms."""

from pathlib import Path
from typing import Any

import cv2
import imageio.v2 as imageio
import numpy as np

LABEL_HEIGHT_PX = 16
GAP_PX = 8


def write_side_by_side(path: Path, frames: dict[str, list[np.ndarray]], fps: float) -> None:
    """Write one video; the arm that ended first keeps its last frame.

    Args:
        path: the .mp4 to write; its folder is made.
        frames: arm name to its frames, each (H, W, 3) uint8, one a look of the policy.
        fps: looks a second of robot time, so that the video runs at the robot's speed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    length = max(map(len, frames.values()))
    writer: Any
    with imageio.get_writer(path, fps=fps, macro_block_size=8) as writer:
        for i in range(length):
            panels = [_panel(name, arm[min(i, len(arm) - 1)]) for name, arm in frames.items()]
            writer.append_data(_join(panels))


def _panel(name: str, frame: np.ndarray) -> np.ndarray:
    label = np.zeros((LABEL_HEIGHT_PX, frame.shape[1], 3), np.uint8)
    cv2.putText(label, name, (4, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1)
    return np.concatenate([label, frame])


def _join(panels: list[np.ndarray]) -> np.ndarray:
    gap = np.zeros((panels[0].shape[0], GAP_PX, 3), np.uint8)
    joined = [panels[0]]
    for panel in panels[1:]:
        joined += [gap, panel]
    return np.concatenate(joined, axis=1)
