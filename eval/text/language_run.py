"""Runs what is missing of a language evaluation, one piece after another, each kept at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console

from einsort_vla import huggingface  # noqa: F401  (so that Transformers can load compressed models)
from einsort_vla.checkpoint import check_tokenizer_folder, model_class, read_config
from einsort_vla.checkpoint.source import CONFIG
from einsort_vla.errors import (
    CheckpointError,
    EinSortError,
    UsageError,
    cut,
    panics_as_errors,
    reason_of,
)
from einsort_vla.families import without_foreign_code
from einsort_vla.results.log import appending, read_log
from eval.run.arms import Arm
from eval.run.progress import counting
from eval.text.harness import Answer, Examinee, Questions, quiet
from eval.text.perplexity import Window, WindowScore, score_window

WINDOWS, ANSWERS = "windows.jsonl", "answers.jsonl"
QUESTIONS_AT_ONCE = 20  # kept together; few enough not to lose minutes when killed
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


@dataclass(frozen=True)
class Exam:
    """What every model is given."""

    windows: Sequence[Window]
    tasks: Sequence[Questions]
    limit: int  # questions of each task; 0 means all

    def n_questions(self, task: Questions) -> int:
        return min(self.limit or task.n, task.n)


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model's folder.

    Raises:
        CheckpointError: there is none, or it cannot be read.
    """
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise CheckpointError(
            f"{folder} has no tokenizer (none of {', '.join(TOKENIZER_FILES)}): put the files of "
            "the model's tokenizer there."
        )
    try:
        check_tokenizer_folder(folder)
        with panics_as_errors(), without_foreign_code():
            return transformers.AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # whatever a damaged file raises
        raise CheckpointError(f"the tokenizer in {folder} cannot be read: {error}") from error


def check_model(folder: Path) -> int:
    """How many tokens a language model can hold.

    Raises:
        CheckpointError: the folder has no config, or one that cannot be used.
        UsageError: it is no model that continues text.
    """
    kind = model_class(folder, read_config(folder))
    if not kind.can_generate():
        raise UsageError(
            f"{folder} holds {kind.__name__}, which does not continue text; a model such as "
            "LlamaForCausalLM is needed."
        )
    try:
        with without_foreign_code():
            text = transformers.AutoConfig.from_pretrained(folder).get_text_config()
        return int(text.max_position_embeddings)
    except Exception as error:  # whatever a damaged config raises
        raise CheckpointError(
            f"{folder / CONFIG} cannot be used: {cut(reason_of(error))}"
        ) from error


def run_missing(
    arms: Sequence[Arm], exam: Exam, tokenizer: Any, folder: Path, device: str, console: Console
) -> tuple[list[WindowScore], list[Answer]]:
    """Score what the logs of a run folder do not have yet; all scores and answers."""
    scores = list(read_log(folder / WINDOWS, WindowScore))
    answers = list(read_log(folder / ANSWERS, Answer))
    missing = {arm.name: _missing(arm.name, exam, scores, answers) for arm in arms}
    kinds = [kind for pieces in missing.values() for kind, _ in pieces]
    with (
        counting("pieces scored", kinds, console) as step,
        appending(folder / WINDOWS) as keep_scores,
        appending(folder / ANSWERS) as keep_answers,
    ):
        for arm in arms:
            if not missing[arm.name]:
                continue
            model = _load(arm.folder, device)
            examinee: Examinee | None = None
            for kind, numbers in missing[arm.name]:
                if kind == WINDOWS:
                    (k,) = numbers
                    nll = score_window(model, exam.windows[k])
                    scores.append(WindowScore(arm.name, k, exam.windows[k].n_scored, nll))
                    keep_scores(scores[-1])
                else:
                    examinee = examinee or Examinee(arm.name, model, tokenizer)
                    (task,) = (task for task in exam.tasks if task.name == kind)
                    given = examinee.ask(task, numbers)
                    answers += given
                    keep_answers(*given)
                step(kind)
            del model, examinee
    return scores, answers


def is_complete(
    arms: Sequence[Arm], exam: Exam, scores: Sequence[WindowScore], answers: Sequence[Answer]
) -> bool:
    """Whether every window is scored and every question answered."""
    return not any(_missing(arm.name, exam, scores, answers) for arm in arms)


def _missing(
    arm: str, exam: Exam, scores: Sequence[WindowScore], answers: Sequence[Answer]
) -> list[tuple[str, list[int]]]:
    """(WINDOWS, [its number]) or (task, numbers of questions) of each piece."""
    done = {score.window for score in scores if score.arm == arm}
    pieces = [(WINDOWS, [k]) for k in range(len(exam.windows)) if k not in done]
    for task in exam.tasks:
        asked = {a.question for a in answers if (a.arm, a.task) == (arm, task.name)}
        left = [k for k in range(exam.n_questions(task)) if k not in asked]
        starts = range(0, len(left), QUESTIONS_AT_ONCE)
        pieces += [(task.name, left[start : start + QUESTIONS_AT_ONCE]) for start in starts]
    return pieces


def _load(folder: Path, device: str) -> Any:
    kind = model_class(folder, read_config(folder))
    try:
        with quiet(), without_foreign_code():
            model = kind.from_pretrained(folder, dtype=torch.float32)
    except EinSortError:
        raise
    except Exception as error:  # whatever an incomplete or damaged model raises
        raise CheckpointError(
            f"{folder} cannot be loaded by {kind.__name__} ({cut(reason_of(error))})."
        ) from error
    return model.to(device).eval()
