"""Questions about pictures with text: from a hub, in TextVQA's original form, or in LLaVA's.

A question without a picture can be answered from OCR tokens alone, one without answers can only be
compared with what another model answers.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from PIL import Image

from einsort_vla.errors import CheckpointError, UsageError, importing
from eval.text.vqa_prompts import read_prompt

HUB_NAMES = ("lmms-lab/textvqa", "lmms-lab-encoder/textvqa")  # the same data under two owners
PICTURES = "train_images"  # where the original archive has those of validation, too


@dataclass(frozen=True)
class VqaQuestion:
    """One question.

    Attributes:
        question_id: unique among the questions of a run.
        image_id: questions of one picture share it.
        answers: the ten annotators'; empty where they are not known.
        ocr_tokens: what the data set says is written in the picture; None where it says nothing.
        open_image: gives the picture, RGB; None where there is none.
    """

    question_id: str
    image_id: str
    text: str
    answers: tuple[str, ...] = ()
    ocr_tokens: tuple[str, ...] | None = None
    open_image: Callable[[], Image.Image] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class QuestionSet:
    """Questions with where they come from."""

    name: str  # as a report gives it
    questions: tuple[VqaQuestion, ...]
    files: tuple[Path, ...] = ()  # whose fingerprints run.json keeps
    notes: tuple[str, ...] = ()

    def first(self, limit: int | None) -> "QuestionSet":
        """The first ones."""
        return self if limit is None else replace(self, questions=self.questions[:limit])


def load_json(path: Path, images: Path) -> QuestionSet:
    """TextVQA's original form, such as TextVQA_0.5.1_val.json, with a folder of pictures.

    Args:
        path: a JSON object whose `data` lists records with image_id, question_id, question,
            answers and, in some versions, ocr_tokens.
        images: holds `<image_id>.jpg`, or has a folder `train_images` that does.

    Raises:
        CheckpointError: the file is of another form, or pictures are missing.
    """
    folder = images / PICTURES if (images / PICTURES).is_dir() else images
    questions = []
    for number, record in enumerate(_records(path)):
        try:
            questions.append(
                _from_record(record, partial(_open, folder / f"{record['image_id']}.jpg"))
            )
        except (KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path}: record {number} is not of TextVQA's form ({error!r}); it needs image_id, "
                "question_id and question."
            ) from error
    _check_pictures(path, folder, {q.image_id for q in questions})
    return QuestionSet(path.name, _numbered(path, questions), (path,))


def load_jsonl(path: Path, images: Path | None) -> QuestionSet:
    """LLaVA's form: one object a line, with question_id, image, and text, which is a whole prompt.

    The question and its OCR tokens are taken out of the prompt. There are no answers.

    Raises:
        CheckpointError: the file is of another form, or pictures are missing.
    """
    questions = []
    for number, line in enumerate(_text(path).splitlines(), start=1):
        try:
            record = json.loads(line)
            text, ocr_tokens = read_prompt(record["text"])
            image_id = Path(record["image"]).stem
            opener = partial(_open, images / record["image"]) if images else None
            question_id = str(record["question_id"])
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path}: line {number} is not of LLaVA's form ({error!r}); it needs question_id, "
                "image and text."
            ) from error
        questions.append(VqaQuestion(question_id, image_id, text, (), ocr_tokens, opener))
    if images:
        _check_pictures(path, images, {q.image_id for q in questions})
    return QuestionSet(path.name, _numbered(path, questions), (path,))


def load_hub(names: Iterable[str], split: str) -> QuestionSet:
    """A data set of the Hugging Face hub or a folder in its form, under the first name that works.

    Raises:
        CheckpointError: none can be reached, all are gated, or the columns are others.
        MissingDependency: datasets is not installed.
    """
    with importing("datasets cannot be imported", "pip install datasets"):
        from datasets import load_dataset
    failures: dict[str, Exception] = {}
    for name in names:
        try:
            return _from_hub(name, split, load_dataset(name, split=split))
        except CheckpointError:
            raise
        except Exception as error:  # each of the library's many, for gated, unknown, unreachable
            failures[name] = error
    tried = "; ".join(f"{name}: {_reason(error)}" for name, error in failures.items())
    raise CheckpointError(
        f"no questions could be loaded ({tried}). Check the name, --split {split}, the network "
        "and `hf auth login`; or give --data TextVQA_0.5.1_val.json with --images FOLDER."
    )


def _from_hub(name: str, split: str, rows: Any) -> QuestionSet:
    if missing := {"image_id", "question_id", "question", "image"} - set(rows.column_names):
        raise CheckpointError(
            f"{name} lacks the columns {', '.join(sorted(missing))}; it has "
            f"{', '.join(rows.column_names)}."
        )

    def picture(k: int) -> Image.Image:
        return rows[k]["image"].convert("RGB")

    records = rows.remove_columns("image")
    questions = [_from_record(record, partial(picture, k)) for k, record in enumerate(records)]
    return QuestionSet(f"{name}, split {split}", _numbered(name, questions))


def _from_record(record: dict[str, Any], open_image: Callable[[], Image.Image]) -> VqaQuestion:
    question_id, image_id, text = (str(record[k]) for k in ("question_id", "image_id", "question"))
    answers = tuple(answer for answer in record.get("answers") or () if answer)
    tokens = record.get("ocr_tokens")
    tokens = None if tokens is None else tuple(tokens)
    return VqaQuestion(question_id, image_id, text, answers, tokens, open_image)


def _records(path: Path) -> list[dict[str, Any]]:
    try:
        return list(json.loads(_text(path))["data"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is no file of TextVQA questions ({error!r}): a JSON object with a list "
            "`data` is expected."
        ) from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from error


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except OSError as error:
        raise CheckpointError(f"the picture {path} cannot be read: {error}.") from error


def _check_pictures(path: Path, folder: Path, image_ids: set[str]) -> None:
    there = {file.stem for file in folder.iterdir()} if folder.is_dir() else set()
    if missing := sorted(image_ids - there):
        raise CheckpointError(
            f"{len(missing)} of the {len(image_ids)} pictures of {path.name} are not in {folder}, "
            f"such as {missing[0]}.jpg. Give their folder with --images."
        )


def _numbered(source: object, questions: list[VqaQuestion]) -> tuple[VqaQuestion, ...]:
    """With ids made unique: LLaVA's are those of the pictures."""
    if not questions:
        raise UsageError(f"{source} has no questions.")
    counts = Counter(question.question_id for question in questions)
    numbers = {question_id: count(1) for question_id, n in counts.items() if n > 1}
    return tuple(
        replace(question, question_id=f"{question.question_id}#{next(number)}")
        if (number := numbers.get(question.question_id))
        else question
        for question in questions
    )


def _reason(error: Exception) -> str:
    is_gated = "gated" in f"{type(error).__name__} {error}".lower()
    first_line = (str(error).splitlines() or [""])[0]
    return ("gated, accept its conditions on the hub first; " if is_gated else "") + (
        f"{type(error).__name__}: {first_line}"
    )
