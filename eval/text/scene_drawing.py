"""Draws a sign into a picture: set in type, turned in perspective, lit like what is around it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from eval.text.scene_backgrounds import Background, Place
from eval.text.scene_signs import Look, Sign

SUPERSAMPLED = 3  # a sign is drawn so much larger than it is seen
JITTER = 0.02  # of a corner, as a share of the sign's width
SHADOW_PX = 3
WORD_GAP = "  "  # with one space the reader takes two words for one
NOISE_LEVELS = 2.5  # standard deviation of the camera's noise, of 255

Colour = tuple[int, int, int]
SANS, SANS_BOLD, SERIF_BOLD, MONO_BOLD = (
    "DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif-Bold.ttf", "DejaVuSansMono-Bold.ttf",
)  # fmt: skip
TIMES_BOLD = "STIXGeneralBol.ttf"


@dataclass(frozen=True)
class Paint:
    """Colours and faces of a look, one of each drawn for a sign."""

    papers: tuple[Colour, ...]
    inks: tuple[Colour, ...]  # one a paper
    faces: tuple[str, ...]
    border: bool = True


PAINTS: dict[Look, Paint] = {
    "board": Paint(
        ((28, 60, 120), (150, 30, 35), (246, 240, 222), (250, 205, 60)),
        ((250, 250, 245), (252, 244, 226), (60, 40, 25), (25, 25, 25)),
        (SANS_BOLD, SERIF_BOLD, TIMES_BOLD),
    ),
    "street": Paint(
        ((18, 96, 62), (30, 70, 140)), ((248, 248, 248), (250, 250, 250)), (SANS_BOLD, SANS)
    ),
    "plate": Paint(
        ((205, 205, 200), (40, 42, 46)), ((30, 30, 32), (232, 222, 190)), (SANS_BOLD, SERIF_BOLD)
    ),
    "screen": Paint(((12, 14, 14), (10, 16, 24)), ((255, 70, 40), (90, 230, 255)), (MONO_BOLD,)),
    "tag": Paint(
        ((252, 250, 242), (255, 226, 90)), ((190, 25, 30), (35, 30, 30)), (SANS_BOLD, SERIF_BOLD)
    ),
    "poster": Paint(
        ((240, 232, 214), (35, 30, 60), (210, 90, 50)),
        ((110, 30, 60), (250, 220, 150), (255, 250, 240)),
        (SERIF_BOLD, TIMES_BOLD, SANS_BOLD),
    ),
    "label": Paint(
        ((120, 30, 50), (236, 226, 200), (40, 90, 60)),
        ((250, 235, 200), (70, 45, 30), (250, 248, 235)),
        (TIMES_BOLD, SERIF_BOLD),
    ),
}


def compose(
    background: Background, placed: Sequence[tuple[Sign, Place]], rng: np.random.Generator
) -> Image.Image:
    """The background with signs in places, as a camera would see it; RGB, of the same size."""
    picture = np.asarray(background.image, np.float32)
    for sign, place in placed:
        picture = _put(picture, sign, place, rng)
    picture = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.3, 0.6)))
    picture = picture + rng.normal(0, NOISE_LEVELS, picture.shape)
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))


def _put(picture: np.ndarray, sign: Sign, place: Place, rng: np.random.Generator) -> np.ndarray:
    height, width = picture.shape[:2]
    left, top, right, bottom = place.box
    box = np.array([left * width, top * height, right * width, bottom * height])
    own = (box[2:] - box[:2]) * SUPERSAMPLED
    drawn = _draw(sign, (int(own[0]), int(own[1])), rng)
    corners = _centred(drawn.size, box)
    corners = _seen(corners, place, rng)
    source = np.array([[0, 0], [drawn.width, 0], [drawn.width, drawn.height], [0, drawn.height]])
    matrix = cv2.getPerspectiveTransform(source.astype(np.float32), corners.astype(np.float32))
    size = width, height
    seen = cv2.warpPerspective(np.asarray(drawn, np.float32), matrix, size, flags=cv2.INTER_AREA)
    cover = np.full((drawn.height, drawn.width), 1, np.float32)
    cover = cv2.warpPerspective(cover, matrix, size, flags=cv2.INTER_AREA)[:, :, None]
    shadow = np.roll(cv2.GaussianBlur(cover, (0, 0), SHADOW_PX), SHADOW_PX, (0, 1))[:, :, None]
    shaded = picture * (1 - 0.45 * shadow)
    return shaded * (1 - cover) + seen * _light(picture, corners) * cover


def _centred(size: tuple[int, int], box: np.ndarray) -> np.ndarray:
    """Corners (4, 2) px, clockwise from the upper left, of a sign that fills the box's middle."""
    middle, half = (box[:2] + box[2:]) / 2, np.array(size) / SUPERSAMPLED / 2
    return middle + np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half


def _seen(corners: np.ndarray, place: Place, rng: np.random.Generator) -> np.ndarray:
    width, height = corners[2] - corners[0]
    moved = corners + rng.uniform(-JITTER, JITTER, (4, 2)) * width
    if place.is_wall:
        moved[1, 1] += place.lean * height
        moved[2, 1] -= place.lean * height
    else:
        moved[0, 0] += place.lean * width
        moved[1, 0] -= place.lean * width
    return moved


def _light(picture: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """How bright the surroundings are, smoothly, (height, width, 1); 1 is a lit white wall."""
    grey = picture.mean(2)
    around = cv2.GaussianBlur(grey, (0, 0), 25) / 255
    left, top = np.maximum(corners.min(0), 0).astype(int)
    right, bottom = corners.max(0).astype(int)
    level = float(around[top:bottom, left:right].mean())
    return np.clip(0.72 + 0.35 * level + 0.6 * (around - level), 0.55, 1.1)[:, :, None]


def _draw(sign: Sign, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """The sign seen from the front, at most of that size, px."""
    paint = PAINTS[sign.look]
    colour = int(rng.integers(len(paint.papers)))
    face = paint.faces[int(rng.integers(len(paint.faces)))]
    paper, ink = paint.papers[colour], paint.inks[colour]
    pad = 0.09 * size[1]
    lines = [line.replace(" ", WORD_GAP) for line in sign.lines]
    fonts = [_fitting(line, face, size, len(lines), pad) for line in lines]
    boxes = [font.getbbox(line) for font, line in zip(fonts, lines, strict=True)]
    width = int(min(size[0], max(box[2] - box[0] for box in boxes) + 3 * pad))
    gap = 0.6 * pad
    height = int(sum(box[3] - box[1] for box in boxes) + 2.6 * pad + gap * (len(boxes) - 1))
    image = Image.new("RGB", (width, height), paper)
    pen = ImageDraw.Draw(image)
    if paint.border:
        inset, line_width = int(pad / 3), max(2, int(pad / 8))
        frame = (inset, inset, width - inset, height - inset)
        pen.rounded_rectangle(frame, int(pad / 2), outline=ink, width=line_width)
    y = 1.3 * pad
    for line, font, box in zip(lines, fonts, boxes, strict=True):
        x = (width - (box[2] - box[0])) / 2
        pen.text((x - box[0], y - box[1]), line, fill=ink, font=font)
        y += box[3] - box[1] + gap
    return image


def _fitting(
    line: str, face: str, size: tuple[int, int], n_lines: int, pad: float
) -> ImageFont.FreeTypeFont:
    """The face at the largest size at which the line has room."""
    room_x, room_y = size[0] - 3 * pad, (size[1] - 2.6 * pad) / n_lines - 0.6 * pad
    box = _font(face, 100).getbbox(line)
    scale = min(room_x / (box[2] - box[0]), room_y / (box[3] - box[1]))
    return _font(face, max(8, int(100 * scale)))


@cache
def _font(face: str, size_px: int) -> ImageFont.FreeTypeFont:
    """One of the faces that matplotlib brings: DejaVu (free) and STIX (SIL Open Font License)."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", face)), size_px)
