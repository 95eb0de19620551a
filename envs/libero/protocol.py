"""LIBERO's evaluation protocol as data: what an episode is, and how the policy sees it."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import yaml
from msgspec import Meta

from einsort_vla.errors import UsageError, cut, unknown_name
from einsort_vla.reading import as_record, read_text
from envs.environment import EpisodeProtocol

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "eval"
DEFAULT = "einsort"
MAX_BYTES = 100_000  # of a file; the project's have a thousand

Pixels = Annotated[int, Meta(ge=16, le=2048)]


@dataclass(frozen=True)
class LiberoProtocol(EpisodeProtocol):
    """All choices that move a LIBERO success rate; see configs/eval/einsort.yaml for each."""

    controller: Literal["OSC_POSE"]  # what demonstrations, policies and experts act by
    gripper_open: Annotated[float, Meta(ge=-1, le=1)]
    settle_steps: Annotated[int, Meta(ge=0, le=1000)]
    image_size_px: Pixels
    image_resize_px: Pixels | None
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
        UsageError: there is none, it extends itself or a file elsewhere, a key is unknown or
            absent, or a choice does not exist.
        CheckpointError: the file is no UTF-8, or a value is of another type or out of its bounds.
    """
    path = _find(name_or_path)
    data = _extended([path])
    names = {field.name for field in fields(LiberoProtocol)}
    for key in data:
        if key not in names:
            raise unknown_name(f"key in {path.name}", str(key), names)
    if missing := sorted(names - data.keys()):
        raise UsageError(f"{path.name} lacks the keys {', '.join(missing)}.")
    for key, hint in get_type_hints(LiberoProtocol).items():
        choices = get_args(hint)
        if get_origin(hint) is Literal and data[key] not in choices:
            raise unknown_name(f"{key} in {path.name}", str(data[key]), choices)
    return as_record(data, LiberoProtocol, str(path))


def _find(name_or_path: str) -> Path:
    if name_or_path in protocol_names():
        return FOLDER / f"{name_or_path}.yaml"
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        raise unknown_name("protocol", name_or_path, protocol_names())
    if not path.is_file():
        raise UsageError(f"protocol file {path} does not exist.")
    return path


def _extended(chain: list[Path]) -> dict[Any, Any]:
    """The keys of the last of these files, and those that it takes from what it extends.

    Args:
        chain: files, of which each extends the next.
    """
    path, data = chain[-1], _read(chain[-1])
    if (base := data.pop("extends", None)) is None:
        return data
    further = _base_of(path, base)
    if any(further.resolve() == known.resolve() for known in chain):
        told = " extends ".join(known.name for known in (*chain, further))
        raise UsageError(f"a protocol cannot extend itself: {told}.")
    return {**_extended([*chain, further]), **data}


def _base_of(path: Path, base: object) -> Path:
    """What a file extends: a protocol of the project, or a file beside it."""
    if isinstance(base, str) and base in protocol_names():
        return _find(base)
    if isinstance(base, str) and base == Path(base).name and base.endswith((".yaml", ".yml")):
        return _find(str(path.parent / base))
    raise UsageError(
        f"{path} extends {cut(repr(base))}. A protocol extends one of the project "
        f"({', '.join(protocol_names())}), or a file in its own folder."
    )


def _read(path: Path) -> dict[Any, Any]:
    try:
        data = yaml.load(read_text(path, MAX_BYTES), _PlainLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        said = " ".join(str(error).split())  # YAML's errors have lines with the place
        what = "it is nested too deeply" if isinstance(error, RecursionError) else cut(said)
        raise UsageError(f"protocol file {path} is no YAML: {what}") from error
    if not isinstance(data, dict):
        raise UsageError(f"protocol file {path} holds no keys.")
    return data


class _PlainLoader(yaml.SafeLoader):
    """Without aliases: a few lines of them stand for more than memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"write out what the alias stands for{self.get_mark()}")
        return super().compose_node(parent, index)
