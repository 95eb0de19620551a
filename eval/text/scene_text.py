"""TextVQA's stand-in offline: pictures with made-up signs, questions and ten answers to each.

They have TextVQA's own form, so that they are loaded and scored like it. A score on them is NOT the
TextVQA score: the signs are few, clean and all of a kind.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from einsort_vla.claims import atomic_folder
from eval.run.provenance import ROOT
from eval.text.scene_backgrounds import Background, Place, load_backgrounds
from eval.text.scene_drawing import compose
from eval.text.scene_signs import Look, Sign, annotate, draw_sign
from eval.text.settings import SCENE_TEXT
from eval.text.vqa_data import PICTURES, QuestionSet, load_json

VERSION = 3  # of what a seed means; older pictures are made anew
MADE = ROOT / "outputs" / "scene-text"
N_TRAIN = 64  # training questions, as many as the paper calibrates on
# Of the training questions, whatever the seed of the others: a small model does as its worked
# examples do. With those of seeds 0 to 3 SmolLM2 had 10, 34, 36, 46 % on 48 questions of seed 100.
TRAIN_SEED = 3
Split = Literal["val", "train"]
SPLITS: tuple[Split, ...] = ("val", "train")
NOT_TEXTVQA = (
    "The pictures, questions and answers were made by this project. The accuracy is NOT the "
    "TextVQA score and can only be compared with another run on the same pictures."
)
MAX_SIGNS, ASKED_PER_PICTURE = 3, 2


@dataclass(frozen=True)
class Picture:
    """One to be made."""

    split: Split
    number: int
    background: Background

    @property
    def image_id(self) -> str:
        return f"{self.split}-{self.number:05d}"


def load_scene_text(n_questions: int, seed: int, split: Split = "val") -> QuestionSet:
    """Made-up questions; what was made once is used again.

    Args:
        n_questions: two a picture; of `train` there are always `N_TRAIN`.
        seed: of the questions that are asked; the first of a longer set are those of a shorter.
        split: `train` has other pictures than `val`, the same for every seed.
    """
    folder = MADE / f"v{VERSION}-seed{seed}-{n_questions}"
    if not folder.is_dir():
        make_scene_text(folder, n_questions, seed, load_backgrounds())
    found = load_json(folder / f"{split}.json", folder)
    name = f"{SCENE_TEXT}, made by this project, seed {seed}"
    return replace(found, name=name, notes=(NOT_TEXTVQA,))


def make_scene_text(
    folder: Path, n_questions: int, seed: int, backgrounds: list[Background]
) -> None:
    """Write pictures and both splits in TextVQA's form, the folder whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as partial:
        (partial / PICTURES).mkdir()
        sizes: dict[Split, int] = {"val": n_questions, "train": N_TRAIN}
        for split, n in sizes.items():
            own_seed = seed if split == "val" else TRAIN_SEED
            records = _make_split(partial / PICTURES, split, n, own_seed, backgrounds)
            content = {"dataset_type": split, "made_by": SCENE_TEXT, "data": records}
            (partial / f"{split}.json").write_text(json.dumps(content, indent=1), encoding="utf-8")


def _make_split(
    folder: Path, split: Split, n_questions: int, seed: int, backgrounds: list[Background]
) -> list[dict]:
    records: list[dict] = []
    while len(records) < n_questions:
        number = len(records) // ASKED_PER_PICTURE
        rng = np.random.default_rng([seed, SPLITS.index(split), number])
        picture = Picture(split, number, backgrounds[number % len(backgrounds)])
        records += _make_picture(folder, picture, rng)
    return records[:n_questions]


def _make_picture(folder: Path, picture: Picture, rng: np.random.Generator) -> list[dict]:
    placed = _furnish(picture.background, rng)
    signs = [sign for sign, _ in placed]
    image = compose(picture.background, placed, rng)
    image.save(folder / f"{picture.image_id}.jpg", quality=90)
    return [
        {
            "image_id": picture.image_id,
            "question_id": f"{picture.image_id}-{k}",
            "question": signs[k].question,
            "answers": annotate(signs[k], signs[:k] + signs[k + 1 :], rng),
            "image_width": image.width,
            "image_height": image.height,
            "image_classes": [picture.background.name],
            "set_name": picture.split,
        }
        for k in range(ASKED_PER_PICTURE)
    ]


def _furnish(background: Background, rng: np.random.Generator) -> list[tuple[Sign, Place]]:
    """Two or three signs, no two of one look, so that each question has one answer."""
    n = int(rng.integers(ASKED_PER_PICTURE, MAX_SIGNS + 1))
    taken: set[Look] = set()
    placed: list[tuple[Sign, Place]] = []
    for k in rng.permutation(len(background.places)):
        place = background.places[k]
        looks = [look for look in place.looks if look not in taken]
        if not looks or len(placed) == n:
            continue
        look = looks[int(rng.integers(len(looks)))]
        taken.add(look)
        placed.append((draw_sign(rng, look), place))
    return placed
