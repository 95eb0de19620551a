"""The options of both text evaluations; importing this loads nothing heavy."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from eval.run.settings import RunSettings

SMOLLM2 = "smollm2-135m"  # the default: the one language model that comes as a package
PROSE = "eval/text/prose/northanger_abbey.txt"  # the default: comes with the project
LOCAL = {"einsort_facts": "facts.yaml", "einsort_word_problems": "word_problems.yaml"}
SCENE_TEXT = "scene-text"


@dataclass(frozen=True)
class TextSettings(RunSettings):
    """What both have beside their arms and folder."""

    device: str = "cpu"
    """What runs the models: cpu, cuda."""


@dataclass(frozen=True)
class LanguageSettings(TextSettings):
    """Compress a language model and compare it with the dense one: perplexity of a text, and
    questions of lm-evaluation-harness, multiple choice and worked out in words. `--rate R` removes
    the share R of the bytes of the linear weights; everything that the code stores is counted."""

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


@dataclass(frozen=True)
class TextVqaSettings(TextSettings):
    """Compress a model, and ask it and the dense one the same questions about text in pictures,
    scored as TextVQA is. `--rate R` removes the share R of the bytes of the linear weights;
    everything that the code stores is counted."""

    calibrate: Annotated[str | None, tyro.conf.arg(metavar="N|SOURCE")] = None
    """Keep the outputs of layers close, not their weights: on N training questions (the paper has
    64), or on a text file or statistics as in `einsort-vla compress`."""
    model: str = SMOLLM2
    """Folder or hub id of a dense Transformers model, one that sees or a language model, which is
    given the text in the picture; smollm2-135m comes as a package."""
    data: str = SCENE_TEXT
    """scene-text: pictures made by this project, NOT TextVQA; textvqa: from the hub, by both names
    it has there; another hub id or folder; the original TextVQA_0.5.1_val.json; or questions in
    LLaVA's form (.jsonl), which have no answers."""
    images: Path | None = None
    """Folder of the pictures, for --data FILE."""
    split: str = "validation"
    """Split of a hub data set."""
    train: Path | None = None
    """Training questions in the form of --data FILE, for --calibrate N and --shots."""
    metric: Literal["auto", "accuracy", "agreement"] = "auto"
    """accuracy against ten people's answers, or agreement with the dense model; auto: accuracy if
    there are answers."""
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
    """Type that the models compute in."""
    seed: int = 0
    """Seed of scene-text and of the bootstrap."""
