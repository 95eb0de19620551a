"""Questions about pictures with text: from a hub, in TextVQA's original form, or in LLaVA's.

A question without a picture can be answered from OCR tokens alone, one without answers can only be
compared with what another model answers.
"""

import io
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import IO, Any

from msgspec import Struct
from PIL import Image, ImageOps

from einsort_vla.errors import CheckpointError, UsageError, importing, reason_of
from einsort_vla.reading import as_record, check_file, is_own_file, parse_json, read_json, read_text
from eval.text.vqa_prompts import read_prompt

HUB_NAMES = ("lmms-lab/textvqa", "lmms-lab-encoder/textvqa")  # the same data under two owners
PICTURES = "train_images"  # where the original archive has those of validation, too
MAX_BYTES = 2**30  # of a file of questions; TextVQA's training questions are 110 MB
# Of pictures; others may start a program to be opened (PostScript), or are none of a camera.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
TEXTVQA_FORM = (
    "A record of TextVQA has image_id, question_id and question, and may have answers and "
    "ocr_tokens; a file is an object whose `data` lists them."
)
LLAVA_FORM = "A line of LLaVA's form is an object with question_id, image and text."


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


class _TextVqaRecord(Struct, frozen=True):
    image_id: str | int
    question_id: str | int
    question: str
    answers: tuple[str, ...] | None = None
    ocr_tokens: tuple[str, ...] | None = None


class _TextVqaFile(Struct, frozen=True):
    data: tuple[_TextVqaRecord, ...]


class _LlavaRecord(Struct, frozen=True):
    question_id: str | int
    image: str
    text: str


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
    records = read_json(path, _TextVqaFile, TEXTVQA_FORM, MAX_BYTES).data
    files = [f"{record.image_id}.jpg" for record in records]
    _check_pictures(path, folder, set(files))
    questions = [
        _from_record(record, partial(_open, folder / file))
        for record, file in zip(records, files, strict=True)
    ]
    return QuestionSet(path.name, _numbered(path, questions), (path,))


def load_jsonl(path: Path, images: Path | None) -> QuestionSet:
    """LLaVA's form: one object a line, with question_id, image, and text, which is a whole prompt.

    The question and its OCR tokens are taken out of the prompt. There are no answers.

    Raises:
        CheckpointError: the file is of another form, or pictures are missing.
    """
    lines = enumerate(read_text(path, MAX_BYTES).split("\n"), start=1)
    records = [
        parse_json(line, _LlavaRecord, f"{path}, line {number},", LLAVA_FORM)
        for number, line in lines
        if line.strip()
    ]
    if images:
        _check_pictures(path, images, {record.image for record in records})
    questions = []
    for record in records:
        text, ocr_tokens = read_prompt(record.text)
        opener = partial(_open, images / record.image) if images else None
        question_id, image_id = str(record.question_id), Path(record.image).stem
        questions.append(VqaQuestion(question_id, image_id, text, (), ocr_tokens, opener))
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

    rows, home = _undecoded(name, rows), _home(name)

    def picture(k: int) -> Image.Image:
        return _stored(rows[k]["image"], home, f"{k} of {name}")

    questions = [
        _from_record(
            as_record(row, _TextVqaRecord, f"{name}, question {k},", TEXTVQA_FORM),
            partial(picture, k),
        )
        for k, row in enumerate(rows.remove_columns("image"))
    ]
    return QuestionSet(f"{name}, split {split}", _numbered(name, questions))


def _undecoded(name: str, rows: Any) -> Any:
    """Rows whose pictures stay bytes: the library would open any kind, wherever a row says."""
    import datasets

    if not isinstance(rows.features["image"], datasets.Image):
        raise CheckpointError(f"{name}: its column image holds no pictures.")
    return rows.cast_column("image", datasets.Image(decode=False))


def _home(name: str) -> Path:
    """Where pictures may lie that a data set does not hold itself."""
    from datasets import config

    return Path(name) if Path(name).is_dir() else Path(config.HF_CACHE_HOME)


def _stored(found: dict[str, Any] | None, home: Path, name: str) -> Image.Image:
    """The picture of a row, of its bytes or of a file; see `_open`."""
    content, path = (found or {}).get("bytes"), (found or {}).get("path")
    if content is None:
        if not path or not is_own_file(Path(path), home):
            raise _unreadable(name, ValueError("it is neither in the data set nor beside it"))
        return _open(Path(path))
    return _opened(io.BytesIO(content), name)


def _from_record(record: _TextVqaRecord, open_image: Callable[[], Image.Image]) -> VqaQuestion:
    return VqaQuestion(
        str(record.question_id), str(record.image_id), record.question,
        tuple(filter(None, record.answers or ())), record.ocr_tokens, open_image,
    )  # fmt: skip


def _open(path: Path) -> Image.Image:
    """A picture file, RGB, turned as its EXIF orientation says.

    Raises:
        CheckpointError: it is no picture, cut short, of another format, or of so many pixels that
            Pillow takes it for an attack (89 million).
    """
    try:
        check_file(path)  # a pipe would be waited for
    except CheckpointError as error:
        raise _unreadable(str(path), error) from error
    return _opened(path, str(path))


def _opened(source: Path | IO[bytes], name: str) -> Image.Image:
    """As `_open`, of a file or bytes that errors call `name`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(source, formats=FORMATS) as image:
                return _upright(image, name)
    except CheckpointError:
        raise
    except Exception as error:  # each format of Pillow has its own for what is damaged
        raise _unreadable(name, error) from error


def _upright(image: Image.Image, name: str) -> Image.Image:
    """An opened picture, RGB, turned as its EXIF orientation says; errors call it `name`.

    Raises:
        CheckpointError: it is damaged.
    """
    try:
        return ImageOps.exif_transpose(image).convert("RGB")
    except Exception as error:  # as above; reading of the pixels begins here
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: Exception) -> CheckpointError:
    reason = str(error) or type(error).__name__
    return CheckpointError(f"the picture {name} cannot be read: {reason.rstrip('.')}.")


def _check_pictures(path: Path, folder: Path, files: set[str]) -> None:
    """Each lies in the folder itself, so that a name leads nowhere else."""
    there = {file.name for file in folder.iterdir()} if folder.is_dir() else set()
    if missing := sorted(files - there):
        raise CheckpointError(
            f"{len(missing)} of the {len(files)} pictures of {path.name} are not in {folder}, "
            f"such as {missing[0]}. Give their folder with --images."
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
    return "gated, accept its conditions on the hub first; " * is_gated + reason_of(error)
