"""Runs what is missing of a language evaluation, one piece after another, each kept at once."""

import contextlib
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from einsort_vla import huggingface  # noqa: F401  (so that Transformers can load compressed models)
from einsort_vla.checkpoint import read_config
from einsort_vla.errors import CheckpointError, UsageError
from eval.text.harness import Answer, Examinee, Questions, quiet
from eval.text.models import TextArm
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
        return transformers.AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # whatever a damaged file raises
        raise CheckpointError(f"the tokenizer in {folder} cannot be read: {error}") from error


def check_model(folder: Path) -> int:
    """How many tokens a language model can hold.

    Raises:
        CheckpointError: the folder has no config.
        UsageError: it is no model that continues text.
    """
    config = read_config(folder)
    architecture = (config.get("architectures") or [""])[0]
    model_class = getattr(transformers, architecture, None)
    if model_class is None or not model_class.can_generate():
        raise UsageError(
            f"{folder} holds {architecture or 'no named architecture'}, which does not continue "
            "text; a model such as LlamaForCausalLM is needed."
        )
    text = transformers.AutoConfig.from_pretrained(folder).get_text_config()
    return int(text.max_position_embeddings)


def run_missing(
    arms: Sequence[TextArm], exam: Exam, tokenizer: Any, folder: Path, device: str, console: Console
) -> tuple[list[WindowScore], list[Answer]]:
    """Score what the logs of a run folder do not have yet; all scores and answers."""
    scores, answers = read_log(folder / WINDOWS, WindowScore), read_log(folder / ANSWERS, Answer)
    missing = {arm.name: _missing(arm.name, exam, scores, answers) for arm in arms}
    with _progress([kind for kinds in missing.values() for kind, _ in kinds], console) as advance:
        for arm in arms:
            if not missing[arm.name]:
                continue
            model = _load(arm.folder, device)
            examinee: Examinee | None = None
            for kind, numbers in missing[arm.name]:
                if kind == WINDOWS:
                    (k,) = numbers
                    nll = score_window(model, exam.windows[k])
                    found = [WindowScore(arm.name, k, nll, exam.windows[k].n_scored)]
                    scores += found
                    append_log(folder / WINDOWS, found)
                else:
                    examinee = examinee or Examinee(arm.name, model, tokenizer)
                    (task,) = (task for task in exam.tasks if task.name == kind)
                    given = examinee.ask(task, numbers)
                    answers += given
                    append_log(folder / ANSWERS, given)
                advance(kind)
            del model, examinee
    return scores, answers


def is_complete(
    arms: Sequence[TextArm], exam: Exam, scores: Sequence[WindowScore], answers: Sequence[Answer]
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
    model_class = getattr(transformers, read_config(folder)["architectures"][0])
    with quiet():
        model = model_class.from_pretrained(folder, dtype=torch.float32)
    return model.to(device).eval()


def read_log[Record](log: Path, kind: Callable[..., Record]) -> list[Record]:
    """The records of a log; a line that a kill cut short is left out."""
    records = []
    if log.exists():
        for line in log.read_text(encoding="utf-8").split("\n")[:-1]:
            records.append(kind(**json.loads(line)))
    return records


def append_log(log: Path, records: Sequence[Any]) -> None:
    """Add records in one write, after whole lines."""
    if log.exists():
        content = log.read_bytes()
        if not content.endswith(b"\n"):  # of a run that was killed
            log.write_bytes(content[: content.rfind(b"\n") + 1])
    lines = "".join(json.dumps(asdict(record)) + "\n" for record in records)
    with log.open("a", encoding="utf-8") as file:
        file.write(lines)


@contextlib.contextmanager
def _progress(kinds: Sequence[str], console: Console) -> Iterator[Callable[[str], None]]:
    """A bar, or a line now and then in a pipe, with the time left; call it after each piece."""
    left, seconds, last = list(kinds), defaultdict[str, list[float]](list), time.monotonic()
    columns = (TextColumn("scored"), BarColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=len(kinds))

        def advance(kind: str) -> None:
            nonlocal last
            now = time.monotonic()
            seconds[kind].append(now - last)
            last = now
            left.remove(kind)
            known = [s for spent in seconds.values() for s in spent]
            expected = sum(_mean(seconds[kind] or known) for kind in left)
            text = f"{len(known)} of {len(kinds)} pieces, {expected / 60:.1f} min left"
            bar.update(task, advance=1, description=text)
            if not console.is_terminal and len(known) % max(1, len(kinds) // 10) == 0:
                console.print(text, highlight=False)

        yield advance


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
