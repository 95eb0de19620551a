"""What eval/textvqa.py is asked to do; every request that cannot work is refused here."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console

from einsort_vla.checkpoint import DenseFolder
from einsort_vla.errors import CheckpointError, UsageError
from eval.run.copies import Copy, check_arms, plan_copies
from eval.run.settings import check_least
from eval.text.answering import sees
from eval.text.models import check_device, find_model
from eval.text.scene_text import N_TRAIN, load_scene_text
from eval.text.settings import SCENE_TEXT, TextVqaSettings
from eval.text.vqa_data import HUB_NAMES, QuestionSet, VqaQuestion, load_hub, load_json, load_jsonl
from eval.text.vqa_prompts import prompt_for

TEXTVQA = "textvqa"
SCENE_QUESTIONS, SCENE_SHOTS = 64, 8
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class TextVqaRequest:
    """Settings that were found to be possible, with their lists read and their data at hand."""

    settings: TextVqaSettings
    dense: DenseFolder
    copies: tuple[Copy, ...]  # planned without a look at what the layers see
    is_seeing: bool
    ocr: Literal["none", "data", "read"]
    data: QuestionSet
    has_answers: bool
    shots: tuple[VqaQuestion, ...]
    calibration: tuple[VqaQuestion, ...]  # to watch; empty where --calibrate is no number
    source: str | None  # what --calibrate names where it is no number


def check_request(settings: TextVqaSettings, console: Console) -> TextVqaRequest:
    """Refuse whatever cannot work, before anything is written.

    Raises:
        EinSortError: one message that names what was asked for, and what would be valid.
    """
    check_arms(settings)
    check_device(settings.device)
    _check_numbers(settings)
    prompt_for(settings.prompt, "", None)  # an unknown prompt
    dense = find_model(settings.model, console)
    is_seeing = sees(dense.folder)
    n_shots = _n_shots(settings, is_seeing)
    copies = plan_copies(dense, settings)
    data = _load(settings, console)
    ocr = choose_ocr(settings.ocr, is_seeing, data)
    has_answers = _has_answers(settings, data, bool(copies))
    n_watched = _n_watched(settings)
    training = _training(settings, max(n_shots, n_watched or 0), console)
    if training:  # they must have what the questions have
        choose_ocr(ocr, is_seeing, QuestionSet("the training questions", training))
    shots = _apart(training)[:n_shots]
    if len(shots) < n_shots or not all(question.answers for question in shots):
        raise UsageError(f"--shots {n_shots}: there are fewer training questions with an answer.")
    return TextVqaRequest(
        settings, dense, tuple(copies), is_seeing, ocr, data, has_answers, shots,
        training[: n_watched or 0], settings.calibrate if n_watched is None else None,
    )  # fmt: skip


def choose_ocr(
    ocr: Literal["auto", "none", "data", "read"], is_seeing: bool, data: QuestionSet
) -> Literal["none", "data", "read"]:
    """Where OCR tokens come from.

    Raises:
        UsageError: the model does not see and is given none, tokens or pictures are missing.
    """
    have_tokens = all(question.ocr_tokens is not None for question in data.questions)
    have_pictures = all(question.open_image is not None for question in data.questions)
    if is_seeing and not have_pictures:
        raise UsageError(f"{data.name} has no pictures for a model that sees; give --images.")
    if ocr == "auto":
        ocr = "none" if is_seeing else "data" if have_tokens else "read"
    if ocr == "none" and not is_seeing:
        raise UsageError(
            "--ocr none: the model has no vision input, so it must be given the text in the "
            "picture. Use --ocr read, or a model that sees."
        )
    if ocr == "data" and not have_tokens:
        raise UsageError(f"--ocr data: {data.name} has no OCR tokens. Use --ocr read.")
    if ocr == "read" and not have_pictures:
        raise UsageError(f"--ocr read: {data.name} has no pictures; give --images.")
    return ocr


def _check_numbers(settings: TextVqaSettings) -> None:
    if settings.limit is not None and settings.limit < 1:
        raise UsageError(f"--limit {settings.limit} must be at least 1; leave it out for all.")
    check_least(1, batch=settings.batch, max_new_tokens=settings.max_new_tokens)
    n_watched = _n_watched(settings) or 0
    check_least(0, seed=settings.seed, shots=settings.shots or 0, calibrate=n_watched)


def _n_shots(settings: TextVqaSettings, is_seeing: bool) -> int:
    if settings.shots is None:
        return SCENE_SHOTS if settings.data == SCENE_TEXT and not is_seeing else 0
    if settings.shots and is_seeing:
        raise UsageError("--shots is for language models; this one sees.")
    return settings.shots


def _load(settings: TextVqaSettings, console: Console) -> QuestionSet:
    path, images = Path(settings.data), settings.images
    if settings.data == SCENE_TEXT:
        with console.status("Making scene-text pictures"):
            return _load_scenes(settings, "val").first(settings.limit)
    if path.suffix in (".json", ".jsonl"):
        return _load_file(path, images).first(settings.limit)
    names = HUB_NAMES if settings.data == TEXTVQA else (settings.data,)
    with console.status(f"Loading {settings.data}"):
        return load_hub(names, settings.split).first(settings.limit)


def _load_scenes(settings: TextVqaSettings, split: Literal["val", "train"]) -> QuestionSet:
    """Never fewer than by default, so that shorter runs share the pictures."""
    return load_scene_text(max(settings.limit or 0, SCENE_QUESTIONS), settings.seed, split)


def _load_file(path: Path, images: Path | None) -> QuestionSet:
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}.")
    if path.suffix == ".jsonl":
        return load_jsonl(path, images)
    if images is None:
        raise UsageError(f"{path.name} needs --images, the folder of its pictures.")
    return load_json(path, images)


def _has_answers(settings: TextVqaSettings, data: QuestionSet, is_compared: bool) -> bool:
    n = sum(bool(question.answers) for question in data.questions)
    if settings.metric == "agreement" or (settings.metric == "auto" and not n):
        if not is_compared:
            raise UsageError(
                f"{data.name}: without answers only agreement with the dense model can be "
                "measured, and --rate 0 makes no other model."
            )
        return False
    if n < len(data.questions):
        raise UsageError(
            f"accuracy needs answers, and {len(data.questions) - n} of the {len(data.questions)} "
            f"questions of {data.name} have none. Use --metric agreement."
        )
    return True


def _training(settings: TextVqaSettings, n: int, console: Console) -> tuple[VqaQuestion, ...]:
    """At least so many training questions, none of which is asked."""
    if not n:
        return ()
    if settings.data == SCENE_TEXT:
        found = _load_scenes(settings, "train")
    elif settings.train is not None:
        found = _load_file(settings.train, settings.images)
    elif Path(settings.data).suffix in (".json", ".jsonl"):
        raise UsageError("--calibrate N and --shots take training questions: give --train FILE.")
    else:
        found = _load(replace(settings, split="train", limit=2 * n), console)
    if len(found.questions) < n:
        more = f" scene-text makes {N_TRAIN}." if settings.data == SCENE_TEXT else ""
        raise UsageError(f"{n} training questions are asked for; {found.name} has fewer.{more}")
    return found.questions


def _apart(questions: tuple[VqaQuestion, ...]) -> tuple[VqaQuestion, ...]:
    """The first of each picture, then the rest."""
    first = {question.image_id: question for question in reversed(questions)}
    return tuple(sorted(questions, key=lambda each: first[each.image_id] is not each))


def _n_watched(settings: TextVqaSettings) -> int | None:
    """N of `--calibrate N`; None where it names a source, or nothing."""
    try:
        return int(settings.calibrate or "")
    except ValueError:
        return None
