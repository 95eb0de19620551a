"""The evaluation protocol as data: what an episode is, and how the policy sees it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from einsort_vla.errors import UsageError, unknown_name

DEFAULT_PATH = Path(__file__).resolve().parents[1] / "configs" / "eval" / "libero.yaml"

LOOKS = 10_000  # more than any episode has


@dataclass(frozen=True)
class Protocol:
    """All choices that move a LIBERO success rate; see configs/eval/libero.yaml for each."""

    name: str
    control_freq_hz: int
    controller: str
    gripper_open: float
    settle_steps: int
    image_size_px: int
    image_flip: Literal["both_axes", "vertical"]
    quaternion_sign: Literal["x_positive", "raw"]
    max_steps: Mapping[str, int]
    default_max_steps: int

    def steps_for(self, suite: str) -> int:
        """The step budget of one suite, settle steps not counted."""
        return self.max_steps.get(suite, self.default_max_steps)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def load_protocol(path: Path = DEFAULT_PATH) -> Protocol:
    """Read a protocol file.

    Raises:
        UsageError: the file is missing, or a key is unknown or absent.
    """
    if not path.is_file():
        raise UsageError(f"protocol file {path} does not exist.")
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    names = {field.name for field in fields(Protocol)}
    for key in data:
        if key not in names:
            raise unknown_name(f"key in {path.name}", key, names)
    if missing := sorted(names - data.keys()):
        raise UsageError(f"{path.name} lacks the keys {', '.join(missing)}.")
    return Protocol(**data)


def scene_seed(seed: int, task_id: int, episode: int) -> int:
    """One number for all draws of an episode, the same for every policy that is judged on it."""
    return (seed * 1000 + task_id) * 1000 + episode


def look_seed(scene: int, n_looks: int) -> int:
    """Seed of the flow's noise at a look; those of two episodes never meet."""
    return scene * LOOKS + n_looks
