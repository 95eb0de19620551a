"""What eval/language.py is asked to do; every request that cannot work is refused here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from einsort_vla.checkpoint import DenseFolder
from einsort_vla.errors import UsageError
from einsort_vla.plan import is_statistics
from eval.run.copies import check_arms
from eval.text.harness import load_tasks
from eval.text.language_run import Exam, check_model, load_tokenizer
from eval.text.models import check_device, find_model
from eval.text.perplexity import Text, cut, read_text
from eval.text.settings import LanguageSettings

TOO_ALIKE = 0.05  # share of the scored lines that a calibration text may have
LINE = 40  # characters from which a line is told apart from chance


@dataclass(frozen=True)
class LanguageRequest:
    """Settings that were found to be possible, with their lists read and their data at hand."""

    settings: LanguageSettings
    dense: DenseFolder
    tokenizer: Any
    text: Text | None
    exam: Exam


def check_request(settings: LanguageSettings, console: Console) -> LanguageRequest:
    """Refuse whatever cannot work, before anything is written.

    Raises:
        EinSortError: one message that names what was asked for, and what would be valid.
    """
    check_arms(settings)
    check_device(settings.device)
    if settings.limit < 0:
        raise UsageError(f"--limit {settings.limit} must be at least 0; 0 asks all questions.")
    text = None if settings.text == "none" else read_text(settings.text)
    tasks = load_tasks([] if settings.tasks == "none" else settings.tasks.split(","))
    if text is None and not tasks:
        raise UsageError("--text none and --tasks none leave nothing to measure.")
    dense = find_model(settings.model, console)
    n_held = check_model(dense.folder)
    tokenizer = load_tokenizer(dense.folder)
    windows = [] if text is None else _windows(settings, text, tokenizer, n_held)
    if text is not None and settings.calibrate:
        n_tokens = settings.stride * (len(windows) - 1) + settings.window
        check_disjoint(_beginning(tokenizer, text, n_tokens), settings.calibrate)
    exam = Exam(windows, tasks, settings.limit)
    return LanguageRequest(settings, dense, tokenizer, text, exam)


def _windows(settings: LanguageSettings, text: Text, tokenizer: Any, n_held: int) -> list[Any]:
    if settings.window + settings.bos > n_held:
        raise UsageError(
            f"--window {settings.window}{' and --bos' * settings.bos} ask for more tokens than the "
            f"{n_held} that the model can hold."
        )
    if settings.bos and tokenizer.bos_token_id is None:
        raise UsageError(f"--bos: the tokenizer of {settings.model} has no such token.")
    first = tokenizer.bos_token_id if settings.bos else None
    ids = _tokens(tokenizer, text)
    return cut(ids, settings.window, settings.stride, settings.windows, first)


def _tokens(tokenizer: Any, text: Text) -> torch.Tensor:
    found = tokenizer(text.content, add_special_tokens=False, verbose=False)
    return torch.tensor(found.input_ids, dtype=torch.int64)


def _beginning(tokenizer: Any, text: Text, n_tokens: int) -> str:
    """The text of its first tokens; all of it where the tokenizer does not say where they end."""
    if not tokenizer.is_fast:
        return text.content
    found = tokenizer(
        text.content, add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    return text.content[: found["offset_mapping"][n_tokens - 1][1]]


def check_disjoint(scored: str, calibrate: str) -> None:
    """Refuse to calibrate on what is scored. Statistics in a file do not say what they are of.

    Raises:
        UsageError: the calibration text has lines of the scored one.
    """
    path = Path(calibrate)
    if not path.is_file() or is_statistics(path):
        return
    seen = set(path.read_text(encoding="utf-8", errors="replace").splitlines())
    lines = [line for line in scored.splitlines() if len(line) >= LINE]
    n_seen = sum(line in seen for line in lines)
    if n_seen > TOO_ALIKE * len(lines):
        raise UsageError(
            f"--calibrate {calibrate} has {n_seen} of the {len(lines)} lines of --text that are "
            "scored: the compressed model would know its exam. Calibrate on another text."
        )
