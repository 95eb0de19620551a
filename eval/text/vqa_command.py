"""TextVQA: a model, dense and compressed, is asked about text in pictures."""

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console

from einsort_vla.checkpoint import file_sha256
from einsort_vla.cli.calibration import calibration_of
from einsort_vla.plan import LayerStatistics
from einsort_vla.results.run import Run, read_run
from eval.run.arms import DENSE
from eval.run.copies import Copy, describe_arms, list_arms, make_copies, plan_copies
from eval.run.output import describe_run, publish, run_folder
from eval.text.answering import Decoding, load_answering
from eval.text.reader import PACKAGE as READER
from eval.text.report import ROUNDED, TEXTVQA, textvqa_report
from eval.text.settings import SMOLLM2, TextVqaSettings
from eval.text.vqa_data import VqaQuestion
from eval.text.vqa_prompts import prompt_for
from eval.text.vqa_request import DTYPES, TextVqaRequest, check_request
from eval.text.vqa_run import ANSWERS, READ, Asked, answer_missing, read_pictures, watch_questions

MODELS, STATISTICS = "models", "statistics.safetensors"
Words = Mapping[str, tuple[str, ...]]


def main(settings: TextVqaSettings, console: Console) -> int:
    """Run the evaluation; 0 if every question was answered by every model."""
    request = check_request(settings, console)
    with run_folder(TEXTVQA, settings, lambda _: _describe(request)) as output:
        for note in request.data.notes:
            console.print(note)
        return _evaluate(request, output, console)


def _evaluate(request: TextVqaRequest, output: Path, console: Console) -> int:
    """Read the pictures, make the models, ask what is missing, write the report."""
    words: Words = {}
    if request.ocr == "read":
        pictured = [*request.data.questions, *request.shots, *request.calibration]
        words = read_pictures(pictured, output / READ, console)
    asked = _ask(request, request.data.questions, words)
    decoding = _decoding(request, words)
    calibration = _calibrate(request, decoding, words, output, console)
    copies: Sequence[Copy] = request.copies
    if calibration is not None and calibration.sensitivities:
        copies = plan_copies(request.dense, request.settings, calibration)
    make_copies(request.dense, copies, output / MODELS, calibration, console)
    arms = list_arms(request.dense, copies, output / MODELS)
    answers = answer_missing(arms, asked, decoding, output / ANSWERS, console)
    rounded = (ROUNDED,) if request.settings.model == SMOLLM2 else ()
    report = textvqa_report(
        describe_arms(copies, arms), request.data.questions, answers, request.has_answers,
        request.settings.seed, _protocol(request), (*request.data.notes, *rounded),
        read_run(output),
    )  # fmt: skip
    return publish(report, output, console)


def _describe(request: TextVqaRequest) -> Run:
    settings = request.settings
    questions = {f"questions {path.name}": file_sha256(path) for path in request.data.files}
    inputs = {"model": request.dense.sha256, **questions}
    return describe_run(TEXTVQA, "eval/textvqa.py", settings.model, settings, inputs)


def _ask(request: TextVqaRequest, questions: Sequence[VqaQuestion], words: Words) -> list[Asked]:
    """Each question with its prompt."""
    style = request.settings.prompt
    tokens = {
        "none": lambda question: None,
        "data": lambda question: question.ocr_tokens,
        "read": lambda question: words[question.image_id],
    }[request.ocr]
    return [Asked(q, prompt_for(style, q.text, tokens(q))) for q in questions]


def _decoding(request: TextVqaRequest, words: Words) -> Decoding:
    settings = request.settings
    shots = tuple(
        (each.prompt, Counter(each.question.answers).most_common(1)[0][0])
        for each in _ask(request, request.shots, words)
    )
    dtype, batch = DTYPES[settings.dtype], settings.batch
    return Decoding(settings.max_new_tokens, settings.device, dtype, shots, batch)


def _calibrate(
    request: TextVqaRequest, decoding: Decoding, words: Words, output: Path, console: Console
) -> LayerStatistics | None:
    """On training questions, kept in the output folder, or on what --calibrate names."""
    if not request.calibration:
        return calibration_of(request.source, request.dense, console)
    path = output / STATISTICS
    if not path.exists():
        model = load_answering(request.dense.folder, decoding)
        asked = _ask(request, request.calibration, words)
        watch_questions(model, request.dense, asked, console).save(path)
    return LayerStatistics.load(path)


def _protocol(request: TextVqaRequest) -> dict[str, Any]:
    """All that decides the numbers."""
    settings = request.settings
    tokens = {"none": "none", "data": "of the data set", "read": "read from the pictures"}
    read_by = f" by {READER} {metadata.version(READER)}" if request.ocr == "read" else ""
    return {
        "model": settings.model,
        "data": request.data.name,
        "questions": len(request.data.questions),
        "prompt": settings.prompt,
        "ocr_tokens": tokens[request.ocr] + read_by,
        "worked_examples": len(request.shots),
        "decoding": f"greedy, up to {settings.max_new_tokens} tokens, batch {settings.batch}",
        "dtype": settings.dtype,
        "metric": "TextVQA accuracy, each of ten annotators left out once, EvalAI normalisation"
        if request.has_answers
        else f"agreement with {DENSE} after EvalAI normalisation",
        "calibration": f"{len(request.calibration)} training questions"
        if request.calibration
        else settings.calibrate,
    }
