"""Where made-up scene text is put: LIBERO camera frames and photographs, with places for signs."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from einsort_vla.errors import importing
from eval.text.scene_signs import Look

SIZE_PX = 640
FOLDER = Path(__file__).parent / "backgrounds"

WALL: tuple[Look, ...] = ("board", "street", "plate", "poster")
TABLE: tuple[Look, ...] = ("tag", "label", "plate")
SCREEN: tuple[Look, ...] = ("screen",)
OUTSIDE: tuple[Look, ...] = ("board", "street", "poster")


@dataclass(frozen=True)
class Place:
    """Room for one sign.

    Attributes:
        box: left, top, right and bottom, as shares of the picture's width and height.
        looks: what may hang or stand there.
        lean: share by which its far edge is shorter: the top one of what lies on a table, the
            right one of what hangs on a wall that runs away (`is_wall`).
    """

    box: tuple[float, float, float, float]
    looks: tuple[Look, ...]
    lean: float = 0.0
    is_wall: bool = True


def _wall(
    left: float, top: float, right: float, bottom: float, lean: float = 0.0,
    looks: tuple[Look, ...] = WALL,
) -> Place:  # fmt: skip
    return Place((left, top, right, bottom), looks, lean)


def _table(left: float, top: float, right: float, bottom: float) -> Place:
    return Place((left, top, right, bottom), TABLE, 0.08, is_wall=False)


@dataclass(frozen=True)
class Frame:
    """What a LIBERO camera sees of a task's first stored state."""

    suite: str
    task_id: int
    camera: str
    places: tuple[Place, ...]

    @property
    def file_name(self) -> str:
        """Of its picture, which `python -m eval.text.backgrounds.make` renders."""
        return f"{self.suite}-{self.task_id}-{self.camera}.webp"


# By eye, so that signs hang on walls, stand on free parts of tables and cover no robot.
FRAMES = (
    Frame("libero_10", 2, "frontview", (
        _wall(0.03, 0.05, 0.37, 0.29), _wall(0.62, 0.06, 0.97, 0.27),
        _table(0.04, 0.88, 0.36, 0.99), _table(0.56, 0.86, 0.9, 0.985),
        _wall(0.02, 0.38, 0.19, 0.46, looks=SCREEN),
    )),
    Frame("libero_10", 2, "sideview", (
        _wall(0.56, 0.06, 0.96, 0.3), _table(0.25, 0.79, 0.56, 0.93), _table(0.62, 0.8, 0.93, 0.95),
    )),
    Frame("libero_10", 0, "frontview", (
        _wall(0.06, 0.36, 0.34, 0.5, looks=SCREEN), _wall(0.06, 0.04, 0.36, 0.28),
        _table(0.3, 0.68, 0.62, 0.84),
    )),
    Frame("libero_10", 0, "sideview", (
        _wall(0.46, 0.08, 0.92, 0.36), _wall(0.05, 0.08, 0.34, 0.3, lean=0.06),
        _wall(0.04, 0.36, 0.24, 0.43, looks=SCREEN),
    )),
    Frame("libero_goal", 0, "frontview", (
        _wall(0.03, 0.06, 0.36, 0.32), _wall(0.62, 0.05, 0.97, 0.3),
        _table(0.02, 0.85, 0.36, 0.98), _wall(0.06, 0.37, 0.3, 0.48, looks=SCREEN),
    )),
    Frame("libero_goal", 0, "sideview", (
        _wall(0.52, 0.05, 0.95, 0.32), _table(0.52, 0.83, 0.9, 0.97), _table(0.06, 0.9, 0.4, 0.99),
    )),
    Frame("libero_object", 0, "frontview", (
        _wall(0.04, 0.06, 0.38, 0.34), _wall(0.63, 0.06, 0.97, 0.32),
        _wall(0.68, 0.37, 0.93, 0.47, looks=SCREEN), _table(0.52, 0.58, 0.8, 0.7),
    )),
    Frame("libero_object", 0, "sideview", (
        _wall(0.47, 0.1, 0.94, 0.42), _wall(0.05, 0.16, 0.34, 0.44, lean=0.06),
        _wall(0.56, 0.45, 0.9, 0.54, looks=("street", "plate", "screen")),
    )),
)  # fmt: skip

# scikit-learn's photographs, both CC BY 2.0: china.jpg by Daniel Büchele, flower.jpg by Vultilion.
PHOTOGRAPHS = {
    "china.jpg": (
        _wall(0.62, 0.08, 0.98, 0.3, looks=OUTSIDE), _wall(0.03, 0.07, 0.27, 0.24, looks=OUTSIDE),
        _table(0.3, 0.86, 0.66, 0.985), _wall(0.02, 0.84, 0.26, 0.94, looks=SCREEN),
    ),
    "flower.jpg": (
        _wall(0.02, 0.74, 0.4, 0.97, looks=("label", "tag", "board")),
        _wall(0.64, 0.06, 0.98, 0.27, looks=OUTSIDE), _wall(0.02, 0.05, 0.34, 0.2, looks=OUTSIDE),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Background:
    """A picture without made-up text, RGB and square, and where text may go."""

    name: str
    image: Image.Image
    places: tuple[Place, ...]


def load_backgrounds() -> list[Background]:
    """All of them.

    Raises:
        MissingDependency: scikit-learn, whose photographs are used, is not installed.
    """
    with importing("the photographs of scikit-learn are needed", "pip install scikit-learn"):
        import sklearn.datasets
    photographs = Path(sklearn.datasets.__file__).parent / "images"
    frames = [
        Background(f"{f.suite} task {f.task_id}, {f.camera}", _open(FOLDER / f.file_name), f.places)
        for f in FRAMES
    ]
    return frames + [
        Background(name, _open(photographs / name), places) for name, places in PHOTOGRAPHS.items()
    ]


def _open(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return ImageOps.fit(image.convert("RGB"), (SIZE_PX, SIZE_PX))
