"""Asks every model what it has not answered yet; whatever was read or answered is kept at once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from einsort_vla.checkpoint import DenseFolder
from einsort_vla.plan import LayerStatistics
from einsort_vla.results.log import appending, read_log
from einsort_vla.results.record import Record
from eval.run.arms import Arm
from eval.run.progress import counting
from eval.text.answering import AnsweringModel, Decoding, load_answering
from eval.text.reader import Reader
from eval.text.vqa_data import VqaQuestion

READ, ANSWERS = "ocr.jsonl", "answers.jsonl"


@dataclass(frozen=True)
class Asked:
    """A question as it is put to a model."""

    question: VqaQuestion
    prompt: str


class Answer(Record, frozen=True):
    """A line of answers.jsonl."""

    question_id: str
    arm: str
    prompt: str
    answer: str


class PictureWords(Record, frozen=True):
    """What is written in a picture; a line of ocr.jsonl."""

    image_id: str
    tokens: tuple[str, ...]


def read_answers(log: Path) -> dict[str, dict[str, str]]:
    """Arm to question to answer."""
    found: dict[str, dict[str, str]] = {}
    for answer in read_log(log, Answer):
        found.setdefault(answer.arm, {})[answer.question_id] = answer.answer
    return found


def read_pictures(
    questions: Sequence[VqaQuestion], log: Path, console: Console
) -> Mapping[str, tuple[str, ...]]:
    """Picture to the words in it; those that the log has already are not read again."""
    found = {each.image_id: each.tokens for each in read_log(log, PictureWords)}
    missing = {q.image_id: q for q in questions if q.image_id not in found}
    if not missing:
        return found
    reader = Reader(torch.get_num_threads())
    counted = counting("pictures read", ["picture"] * len(missing), console)
    with counted as step, appending(log) as write:
        for image_id, question in missing.items():
            assert question.open_image is not None
            found[image_id] = reader.read(question.open_image())
            write(PictureWords(image_id, found[image_id]))
            step("picture")
    return found


def answer_missing(
    arms: Sequence[Arm], asked: Sequence[Asked], decoding: Decoding, log: Path, console: Console
) -> dict[str, dict[str, str]]:
    """All answers, by arm and question.

    Which questions are answered together follows from the questions alone, and a batch of which an
    answer is missing is answered again as a whole: a run that was stopped gives the same answers.
    """
    found = read_answers(log)
    for arm in arms:
        done = found.setdefault(arm.name, {})
        missing = [
            b for b in batches(asked, decoding.batch) if any(_id(each) not in done for each in b)
        ]
        if not missing:
            continue
        with console.status(f"Loading {arm.name}"):
            model = load_answering(arm.folder, decoding)
        counted = counting(f"batches answered by {arm.name}", ["batch"] * len(missing), console)
        with counted as step, appending(log) as write:
            for together in missing:
                for answer in _answer(model, together, arm.name):
                    done[answer.question_id] = answer.answer
                    write(answer)
                step("batch")
    return found


def batches(asked: Sequence[Asked], size: int) -> list[list[Asked]]:
    """Prompts of about one length together, so that few pads are computed."""
    by_length = sorted(asked, key=lambda each: (len(each.prompt), _id(each)))
    return [by_length[k : k + size] for k in range(0, len(by_length), size)]


def watch_questions(
    model: AnsweringModel, dense: DenseFolder, asked: Sequence[Asked], console: Console
) -> LayerStatistics:
    """What a dense model's layers see while it reads these questions.

    One at a time, so that no padding is counted.
    """
    statistics = LayerStatistics(dense.sha256)
    layers = {
        name: model.model.get_submodule(own.removesuffix(".weight"))
        for name, own in dense.in_model.items()
    }
    counted = counting("training questions watched", ["question"] * len(asked), console)
    with counted as step, statistics.observing(layers):
        for each in asked:
            model.read(each.prompt, _pictures(model, [each])[0])
            step("question")
    return statistics


def _answer(model: AnsweringModel, together: Sequence[Asked], arm: str) -> Iterable[Answer]:
    texts = model.answer([each.prompt for each in together], _pictures(model, together))
    for each, text in zip(together, texts, strict=True):
        yield Answer(_id(each), arm, each.prompt, text)


def _pictures(model: AnsweringModel, asked: Sequence[Asked]) -> list[Any]:
    """For a model that sees; opened one batch at a time, as five thousand do not fit in memory."""
    openers = [each.question.open_image if model.is_seeing else None for each in asked]
    return [opener() if opener else None for opener in openers]


def _id(asked: Asked) -> str:
    return asked.question.question_id
