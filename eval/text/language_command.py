"""A language model, dense and compressed, on one text and the same questions."""

from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console

from einsort_vla.checkpoint import file_sha256
from einsort_vla.cli.calibration import calibration_of
from einsort_vla.cli.run import INCOMPLETE
from einsort_vla.plan import InputStatistics
from einsort_vla.results.page import write_pages
from einsort_vla.results.report import write_report
from einsort_vla.results.run import PAGE, RUN, read_run, write_run
from einsort_vla.results.summary import print_report
from eval.run.arms import Copy, describe_arms, list_arms, make_copies, plan_copies
from eval.run.output import alone_in, prepare_folder
from eval.run.provenance import describe
from eval.text.language_report import FAMOUS, KIND, ROUNDED, SMALL, language_report
from eval.text.language_request import LanguageRequest, check_request
from eval.text.language_run import is_complete, run_missing
from eval.text.settings import LOCAL, PROSE, SMOLLM2, LanguageSettings

MODELS = "models"  # folder of the compressed ones in that of the run


def main(settings: LanguageSettings, console: Console) -> int:
    """Run the evaluation; 0 if every window was scored and every question answered."""
    request = check_request(settings, console)
    calibration = calibration_of(settings.calibrate, request.dense, console)
    copies = plan_copies(request.dense, settings, calibration)
    output = prepare_folder("language", settings.output, comparable(settings), settings.resume)
    with alone_in(output):
        if not (output / RUN).exists():
            inputs, config = _inputs(request), comparable(settings)
            write_run(output, describe(KIND, "eval/language.py", settings.model, config, inputs))
        return _evaluate(request, copies, calibration, output, console)


def _evaluate(
    request: LanguageRequest,
    copies: Sequence[Copy],
    calibration: InputStatistics | None,
    output: Path,
    console: Console,
) -> int:
    """Make the models, score what is missing, write the report."""
    settings = request.settings
    make_copies(request.dense, copies, output / MODELS, calibration, console)
    arms = list_arms(request.dense, copies, output / MODELS)
    scores, answers = run_missing(
        arms, request.exam, request.tokenizer, output, settings.device, console
    )
    report = language_report(
        describe_arms(copies, arms),
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


def comparable(settings: LanguageSettings) -> dict[str, Any]:
    """The settings that decide results."""
    free = ("output", "resume")
    return {key: value for key, value in asdict(settings).items() if key not in free}


def _inputs(request: LanguageRequest) -> dict[str, str]:
    """SHA-256 of what decides the results."""
    inputs = {"model": request.dense.sha256}
    if request.text is not None and request.text.path is not None:
        inputs["text"] = file_sha256(request.text.path)
    calibrate = request.settings.calibrate
    if calibrate and Path(calibrate).is_file():
        inputs["calibrate"] = file_sha256(Path(calibrate))
    return inputs


def _protocol(request: LanguageRequest) -> dict[str, Any]:
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


def _notes(request: LanguageRequest) -> list[str]:
    """What a reader must know not to misread the numbers."""
    notes = []
    if request.settings.model == SMOLLM2:
        notes.append(ROUNDED)
    if any(task.name in LOCAL for task in request.exam.tasks):
        notes.append(SMALL)
    if request.settings.text == PROSE:
        notes.append(FAMOUS)
    return notes
