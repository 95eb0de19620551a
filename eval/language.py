"""A language model, dense and compressed, on one text and the same questions."""

import sys
from pathlib import Path

if not __package__:  # run as a script: see eval/libero.py
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import torch
from rich.console import Console

from einsort_vla.cli.calibration import CalibrateOption, calibration_of
from einsort_vla.cli.run import INCOMPLETE, run_command
from einsort_vla.errors import UsageError
from einsort_vla.plan import InputStatistics, is_statistics
from einsort_vla.results import PAGE, RUN, read_run, write_run
from einsort_vla.results.page import write_pages
from einsort_vla.results.report import write_report
from einsort_vla.results.summary import print_report
from eval.run.output import alone_in, prepare_folder
from eval.run.provenance import describe
from eval.text.harness import LOCAL, load_tasks
from eval.text.language_report import FAMOUS, KIND, ROUNDED, SMALL, language_report
from eval.text.language_run import Exam, check_model, is_complete, load_tokenizer, run_missing
from eval.text.models import (
    SMOLLM2,
    ArmPlans,
    ArmSettings,
    check_arms,
    find_model,
    make_arms,
    plan_arms,
    weight_files,
)
from eval.text.perplexity import PROSE, Text, cut, read_text

MODELS = "models"  # folder of the compressed ones in that of the run
TOO_ALIKE = 0.05  # share of the scored lines that a calibration text may have
LINE = 40  # characters from which a line is told apart from chance


@dataclass(frozen=True)
class Settings(ArmSettings):
    """`--rate R` removes the share R of the bytes of a language model's linear weights (everything
    that the code stores is counted) and compares the result with the dense model: perplexity of a
    text, and questions of lm-evaluation-harness, multiple choice and worked out in words."""

    calibrate: CalibrateOption = None
    model: str = SMOLLM2
    """Folder or hub id of a dense Transformers language model, or smollm2-135m, which comes as a
    package."""
    text: str = PROSE
    """UTF-8 file, or a hub data set as NAME:CONFIG:SPLIT:COLUMN, such as
    Salesforce/wikitext:wikitext-2-raw-v1:test:text, or none."""
    window: int = 512
    """Tokens that the model sees at once, from an empty context."""
    stride: int = 512
    """Tokens from one window to the next; below --window each token has more context."""
    windows: int = 32
    """Windows to score, from the beginning of the text; 0 scores all."""
    bos: bool = False
    """Put the tokenizer's first token before each window, as Gemma needs."""
    tasks: str = ",".join(LOCAL)
    """Tasks separated by commas: local ones, YAML files, names of lm-evaluation-harness (gsm8k,
    piqa; a network is needed), or none."""
    limit: int = 60
    """Questions of each task, from the first; 0 asks all."""
    output: Path | None = None
    """Folder for the results; default: outputs/language-<time>."""
    resume: bool = False
    """Go on with the run in --output; scored windows and questions are kept."""


@dataclass(frozen=True)
class Request:
    """Settings that were found to be possible, with their lists read and their data at hand."""

    settings: Settings
    folder: Path  # of the dense model
    tokenizer: Any
    text: Text | None
    exam: Exam


def main(settings: Settings, console: Console) -> int:
    """Run the evaluation; 0 if every window was scored and every question answered."""
    request = check_request(settings, console)
    calibration = calibration_of(settings.calibrate, request.folder, console)
    plans = plan_arms(request.folder, settings, calibration)
    output = prepare_folder("language", settings.output, comparable(settings), settings.resume)
    with alone_in(output):
        if not (output / RUN).exists():
            inputs, config = _inputs(request), comparable(settings)
            write_run(output, describe(KIND, "eval/language.py", settings.model, config, inputs))
        return _evaluate(request, plans, calibration, output, console)


def _evaluate(
    request: Request,
    plans: ArmPlans,
    calibration: InputStatistics | None,
    output: Path,
    console: Console,
) -> int:
    """Make the models, score what is missing, write the report."""
    settings = request.settings
    arms = make_arms(request.folder, plans, output / MODELS, calibration, console)
    scores, answers = run_missing(
        arms, request.exam, request.tokenizer, output, settings.device, console
    )
    report = language_report(
        [arm.facts() for arm in arms],
        scores,
        answers,
        is_complete(arms, request.exam, scores, answers),
        _protocol(request),
        _notes(request),
        read_run(output),
    )
    write_report(report, output)
    write_pages(report, output)
    print_report(report, console)
    console.print(f"Report: {output / PAGE}", highlight=False, soft_wrap=True)
    return 0 if report.complete else INCOMPLETE


def check_request(settings: Settings, console: Console) -> Request:
    """Refuse whatever cannot work, before anything is written.

    Raises:
        EinSortError: one message that names what was asked for, and what would be valid.
    """
    check_arms(settings)
    if settings.limit < 0:
        raise UsageError(f"--limit {settings.limit} must be at least 0; 0 asks all questions.")
    text = None if settings.text == "none" else read_text(settings.text)
    tasks = load_tasks([] if settings.tasks == "none" else settings.tasks.split(","))
    if text is None and not tasks:
        raise UsageError("--text none and --tasks none leave nothing to measure.")
    folder = find_model(settings.model, console)
    n_held = check_model(folder)
    tokenizer = load_tokenizer(folder)
    windows = [] if text is None else _windows(settings, text, tokenizer, n_held)
    if text is not None and settings.calibrate:
        n_tokens = settings.stride * (len(windows) - 1) + settings.window
        check_disjoint(_beginning(tokenizer, text, n_tokens), settings.calibrate)
    exam = Exam(windows, tasks, settings.limit)
    return Request(settings, folder, tokenizer, text, exam)


def _windows(settings: Settings, text: Text, tokenizer: Any, n_held: int) -> list[Any]:
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


def comparable(settings: Settings) -> dict[str, Any]:
    """The settings that decide results."""
    free = ("output", "resume")
    return {key: value for key, value in asdict(settings).items() if key not in free}


def _inputs(request: Request) -> dict[str, Path]:
    """The files whose SHA-256 run.json has."""
    inputs = weight_files(request.folder)
    if request.text is not None and request.text.path is not None:
        inputs["text"] = request.text.path
    calibrate = request.settings.calibrate
    if calibrate and Path(calibrate).is_file():
        inputs["calibrate"] = Path(calibrate)
    return inputs


def _protocol(request: Request) -> dict[str, Any]:
    settings, exam = request.settings, request.exam
    found: dict[str, Any] = {"model": settings.model, "dtype": "float32"}
    if request.text is not None:
        found["perplexity"] = {
            "text": request.text.source,
            "window": settings.window,
            "stride": settings.stride,
            "windows": len(exam.windows),
            "bos": settings.bos,
        }
    if exam.tasks:
        found["harness"] = f"lm-eval {metadata.version('lm-eval')}"
        found["tasks"] = {
            task.name: task.facts() | {"asked": exam.n_questions(task)} for task in exam.tasks
        }
    found["calibration"] = settings.calibrate
    return found


def _notes(request: Request) -> list[str]:
    """What a reader must know not to misread the numbers."""
    notes = []
    if request.settings.model == SMOLLM2:
        notes.append(ROUNDED)
    if any(task.name in LOCAL for task in request.exam.tasks):
        notes.append(SMALL)
    if request.settings.text == PROSE:
        notes.append(FAMOUS)
    return notes


if __name__ == "__main__":
    run_command(Settings, main, "eval/language.py")
