"""Side-by-side MP4s of the same episode under two arms."""

from pathlib import Path
from typing import Any

import cv2
import imageio.v2 as imageio
import numpy as np

from einsort_vla.atomic import atomic_file
from einsort_vla.results.episode import Scene, episode_name

LABEL_HEIGHT_PX = 16
GAP_PX = 8
FRAMES = ".frames"  # of episodes whose other arm has not ended yet


def frames_path(folder: Path, name: str) -> Path:
    """Where a worker leaves the frames of an episode of that name."""
    return folder / FRAMES / f"{name}.npz"


def save_frames(path: Path, frames: list[np.ndarray]) -> None:
    """(H, W, 3) uint8 each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, frames=np.stack(frames))


def film_scene(folder: Path, scene: Scene, reference: str, arm: str, fps: float) -> None:
    """Write one arm's video beside its reference's, once both have left their frames.

    Args:
        folder: for the .mp4.
        fps: looks a second of robot time, so that the video runs at the robot's speed.
    """
    names = {each: episode_name(scene, each) for each in (reference, arm)}
    paths = {each: frames_path(folder, name) for each, name in names.items()}
    if not all(path.exists() for path in paths.values()):
        return  # the other one is not finished, or was before the run was stopped
    frames = {name: np.load(path)["frames"] for name, path in paths.items()}
    folder.mkdir(parents=True, exist_ok=True)
    writer: Any
    with imageio.get_writer(folder / f"{names[arm]}.mp4", fps=fps, macro_block_size=8) as writer:
        for i in range(max(map(len, frames.values()))):
            # The one that ended first keeps its last frame.
            left, right = (_panel(name, own[min(i, len(own) - 1)]) for name, own in frames.items())
            gap = np.zeros((len(left), GAP_PX, 3), np.uint8)
            writer.append_data(np.concatenate([left, gap, right], axis=1))
    paths[arm].unlink()


def _panel(name: str, frame: np.ndarray) -> np.ndarray:
    label = np.zeros((LABEL_HEIGHT_PX, frame.shape[1], 3), np.uint8)
    cv2.putText(label, name, (4, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1)
    return np.concatenate([label, frame])
