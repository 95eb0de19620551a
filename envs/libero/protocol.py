"""LIBERO's evaluation protocol as data: what an episode is, and how the policy sees it."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from einsort_vla.errors import UsageError, unknown_name
from envs.environment import EpisodeProtocol

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "eval"
DEFAULT = "einsort"


@dataclass(frozen=True)
class LiberoProtocol(EpisodeProtocol):
    """All choices that move a LIBERO success rate; see configs/eval/einsort.yaml for each."""

    controller: str
    gripper_open: float
    settle_steps: int
    image_size_px: int
    image_resize_px: int | None
    image_flip: Literal["both_axes", "vertical"]
    quaternion_sign: Literal["x_positive", "raw"]

    @property
    def shown_px(self) -> int:
        """Height and width of the pictures that a policy is shown."""
        return self.image_resize_px or self.image_size_px


def protocol_names() -> list[str]:
    """Of the protocols that come with the project."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_protocol(name_or_path: str = DEFAULT) -> LiberoProtocol:
    """A protocol by its name, or of a file.

    Raises:
        UsageError: there is none, a key is unknown or absent, or a choice does not exist.
    """
    path = _find(name_or_path)
    data = _read(path)
    if base := data.pop("extends", None):
        data = {**load_protocol(base).as_dict(), **data}
    names = {field.name for field in fields(LiberoProtocol)}
    for key in data:
        if key not in names:
            raise unknown_name(f"key in {path.name}", key, names)
    if missing := sorted(names - data.keys()):
        raise UsageError(f"{path.name} lacks the keys {', '.join(missing)}.")
    for key, hint in get_type_hints(LiberoProtocol).items():
        choices = get_args(hint)
        if get_origin(hint) is Literal and data[key] not in choices:
            raise unknown_name(f"{key} in {path.name}", str(data[key]), choices)
    return LiberoProtocol(**data)


def _find(name_or_path: str) -> Path:
    if name_or_path in protocol_names():
        return FOLDER / f"{name_or_path}.yaml"
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        raise unknown_name("protocol", name_or_path, protocol_names())
    if not path.is_file():
        raise UsageError(f"protocol file {path} does not exist.")
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UsageError(f"protocol file {path} is no YAML: {error}") from error
    if not isinstance(data, dict):
        raise UsageError(f"protocol file {path} holds no keys.")
    return data
