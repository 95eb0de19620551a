"""What eval/textvqa.py is asked to do; every request that cannot work is refused here."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from rich.console import Console

from einsort_vla.errors import CheckpointError, UsageError
from eval.text.answering import sees
from eval.text.models import SMOLLM2, ArmPlans, ArmSettings, check_arms, find_model, plan_arms
from eval.text.scene_text import N_TRAIN, NAME, load_scene_text
from eval.text.vqa_data import (
    HUB_NAMES,
    QuestionSet,
    VqaQuestion,
    load_hub,
    load_json,
    load_jsonl,
)
from eval.text.vqa_prompts import prompt_for

TEXTVQA = "textvqa"
SCENE_QUESTIONS, SCENE_SHOTS = 64, 8
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Settings(ArmSettings):
    """`--rate R` removes the share R of the bytes of a model's linear weights (everything that the
    code stores is counted) and asks the result and the dense model the same questions about text
    in pictures, scored as TextVQA is."""

    calibrate: Annotated[str | None, tyro.conf.arg(metavar="N|SOURCE")] = None
    """Keep the outputs of layers close, not their weights: on N training questions (the paper has
    64), or on a text file or statistics as in `einsort-vla compress`."""
    model: str = SMOLLM2
    """Folder or hub id of a dense Transformers model, one that sees or a language model, which is
    given the text in the picture; smollm2-135m comes as a package."""
    data: str = NAME
    """scene-text: pictures made by this project, NOT TextVQA; textvqa: from the hub, by both names
    it has there; another hub id or folder; the original TextVQA_0.5.1_val.json; or questions in
    LLaVA's form (.jsonl), which have no answers."""
    images: Path | None = None
    """Folder of the pictures, for --data FILE."""
    split: str = "validation"
    """Of a hub data set."""
    train: Path | None = None
    """Training questions in the form of --data FILE, for --calibrate N and --shots."""
    metric: Literal["auto", "accuracy", "agreement"] = "auto"
    """accuracy against ten people's answers, or only agreement with the dense model; auto: by
    whether there are answers."""
    prompt: str = "lmms"
    """lmms, llava or qwen_vl: whose prompt is used."""
    ocr: Literal["auto", "none", "data", "read"] = "auto"
    """OCR tokens in the prompt: none, the data set's, or read from the picture by
    rapidocr-onnxruntime; auto: none for a model that sees, else the data set's where it has any."""
    shots: int | None = None
    """Worked examples before each question, for language models; by default 8 with scene-text
    (SmolLM2-135M answers in sentences without), else 0 as in the published protocol."""
    limit: int | None = None
    """Questions to ask, from the first; default: all, of scene-text 64."""
    max_new_tokens: int = 16
    """Longest answer."""
    batch: int = 8
    """Questions answered in one pass."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """In which the models compute."""
    seed: int = 0
    """Of scene-text and of the bootstrap."""
    output: Path | None = None
    """Folder for the results; default: outputs/textvqa-<time>."""
    resume: bool = False
    """Go on with the run in --output; answers are kept."""


@dataclass(frozen=True)
class Request:
    """Settings that were found to be possible, with their lists read and their data at hand."""

    settings: Settings
    plans: ArmPlans  # without a look at what the layers see
    folder: Path  # of the dense model
    is_seeing: bool
    ocr: Literal["none", "data", "read"]
    data: QuestionSet
    has_answers: bool
    shots: tuple[VqaQuestion, ...]
    calibration: tuple[VqaQuestion, ...]  # empty where --calibrate is no number

    @property
    def n_calibration(self) -> int | None:
        return _number(self.settings.calibrate)


def check_request(settings: Settings, console: Console) -> Request:
    """Refuse whatever cannot work, before anything is written.

    Raises:
        EinSortError: one message that names what was asked for, and what would be valid.
    """
    check_arms(settings)
    _check_numbers(settings)
    prompt_for(settings.prompt, "", None)  # an unknown prompt
    folder = find_model(settings.model, console)
    is_seeing = sees(folder)
    n_shots = _n_shots(settings, is_seeing)
    plans = plan_arms(folder, settings)
    data = _load(settings, console)
    ocr = choose_ocr(settings.ocr, is_seeing, data)
    has_answers = _has_answers(settings, data, bool(plans))
    training = _training(settings, max(n_shots, _number(settings.calibrate) or 0), console)
    if training:  # they must have what the questions have
        choose_ocr(ocr, is_seeing, QuestionSet("the training questions", training))
    shots = _apart(training)[:n_shots]
    if len(shots) < n_shots or not all(question.answers for question in shots):
        raise UsageError(f"--shots {n_shots}: there are not so many training questions answered.")
    n_calibration = _number(settings.calibrate) or 0
    return Request(
        settings, plans, folder, is_seeing, ocr, data, has_answers, shots, training[:n_calibration]
    )


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


def _check_numbers(settings: Settings) -> None:
    if settings.limit is not None and settings.limit < 1:
        raise UsageError(f"--limit {settings.limit} must be at least 1; leave it out for all.")
    if min(settings.batch, settings.max_new_tokens) < 1:
        raise UsageError("--batch and --max-new-tokens must be at least 1.")
    if min(settings.seed, settings.shots or 0, _number(settings.calibrate) or 0) < 0:
        raise UsageError("--seed, --shots and --calibrate N must be at least 0.")


def _n_shots(settings: Settings, is_seeing: bool) -> int:
    if settings.shots is None:
        return SCENE_SHOTS if settings.data == NAME and not is_seeing else 0
    if settings.shots and is_seeing:
        raise UsageError("--shots is for language models; this one sees.")
    return settings.shots


def _load(settings: Settings, console: Console) -> QuestionSet:
    path, images = Path(settings.data), settings.images
    if settings.data == NAME:
        with console.status("Making scene-text pictures"):
            return _load_scenes(settings, "val").first(settings.limit)
    if path.suffix in (".json", ".jsonl"):
        return _load_file(path, images).first(settings.limit)
    names = HUB_NAMES if settings.data == TEXTVQA else (settings.data,)
    with console.status(f"Loading {settings.data}"):
        return load_hub(names, settings.split).first(settings.limit)


def _load_scenes(settings: Settings, split: Literal["val", "train"]) -> QuestionSet:
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


def _has_answers(settings: Settings, data: QuestionSet, is_compared: bool) -> bool:
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


def _training(settings: Settings, n: int, console: Console) -> tuple[VqaQuestion, ...]:
    """At least so many training questions, none of which is asked."""
    if not n:
        return ()
    if settings.data == NAME:
        found = _load_scenes(settings, "train")
    elif settings.train is not None:
        found = _load_file(settings.train, settings.images)
    elif Path(settings.data).suffix in (".json", ".jsonl"):
        raise UsageError("--calibrate N and --shots take training questions: give --train FILE.")
    else:
        found = _load(replace(settings, split="train", limit=2 * n), console)
    if len(found.questions) < n:
        more = f" scene-text makes {N_TRAIN}." if settings.data == NAME else ""
        raise UsageError(f"{n} training questions are asked for; {found.name} has fewer.{more}")
    return found.questions


def _apart(questions: tuple[VqaQuestion, ...]) -> tuple[VqaQuestion, ...]:
    """The first of each picture, then the rest."""
    seen: set[str] = set()
    first, rest = [], []
    for question in questions:
        (rest if question.image_id in seen else first).append(question)
        seen.add(question.image_id)
    return (*first, *rest)


def _number(text: str | None) -> int | None:
    try:
        return int(text or "")
    except ValueError:
        return None
