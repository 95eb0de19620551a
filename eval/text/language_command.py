"""A language model, dense and compressed, on one text and the same questions."""

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console

from einsort_vla.checkpoint import file_sha256
from einsort_vla.cli.calibration import calibration_of
from einsort_vla.plan import LayerStatistics
from einsort_vla.results.run import Run, read_run
from eval.run.copies import Copy, describe_arms, list_arms, make_copies, plan_copies
from eval.run.output import describe_run, publish, run_folder
from eval.text.language_request import LanguageRequest, check_request
from eval.text.language_run import is_complete, run_missing
from eval.text.report import FAMOUS, LANGUAGE, ROUNDED, SMALL, language_report
from eval.text.settings import LOCAL, PROSE, SMOLLM2, LanguageSettings

MODELS = "models"  # folder of the compressed ones in that of the run


def main(settings: LanguageSettings, console: Console) -> int:
    """Run the evaluation; 0 if every window was scored and every question answered."""
    request = check_request(settings, console)
    calibration = calibration_of(settings.calibrate, request.dense, console)
    copies = plan_copies(request.dense, settings, calibration)
    with run_folder(LANGUAGE, settings, lambda _: _describe(request)) as output:
        return _evaluate(request, copies, calibration, output, console)


def _evaluate(
    request: LanguageRequest,
    copies: Sequence[Copy],
    calibration: LayerStatistics | None,
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
    return publish(report, output, console)


def _describe(request: LanguageRequest) -> Run:
    settings, inputs = request.settings, {"model": request.dense.sha256}
    if request.text is not None and request.text.path is not None:
        inputs["text"] = file_sha256(request.text.path)
    return describe_run(LANGUAGE, "eval/language.py", settings.model, settings, inputs)


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
    return found | {"calibration": settings.calibrate}


def _notes(request: LanguageRequest) -> list[str]:
    """What a reader must know not to misread the numbers."""
    applies = {
        ROUNDED: request.settings.model == SMOLLM2,
        SMALL: any(task.name in LOCAL for task in request.exam.tasks),
        FAMOUS: request.settings.text == PROSE,
    }
    return [note for note, is_so in applies.items() if is_so]
