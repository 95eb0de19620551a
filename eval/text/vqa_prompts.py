"""The prompts under which TextVQA's numbers are published; a report names the one it used."""

from collections.abc import Sequence
from typing import Literal

from einsort_vla.errors import unknown_name

Style = Literal["lmms", "llava", "qwen_vl"]
SHORT = "\nAnswer the question using a single word or phrase."
OCR_LINE = "\nReference OCR token: "
SEPARATOR = ", "
ENDINGS: dict[str, str] = {"lmms": SHORT, "llava": SHORT, "qwen_vl": " Answer:"}


def prompt_for(style: str, question: str, ocr_tokens: Sequence[str] | None) -> str:
    """What the model is asked, before its chat template.

    Args:
        style: `lmms` and `qwen_vl` are lmms-eval's, which writes the question with
            `str.capitalize`, so that all but its first letter is in lower case; `llava` is that of
            LLaVA-1.5's published numbers, which leaves it as it is.
        question: as the data set has it.
        ocr_tokens: what is written in the picture; its line is kept when there are none, as LLaVA
            keeps it. None leaves the line out.

    Raises:
        UsageError: an unknown style.
    """
    if style not in ENDINGS:
        raise unknown_name("prompt", style, ENDINGS)
    asked = question if style == "llava" else question.capitalize()
    read = "" if ocr_tokens is None else OCR_LINE + SEPARATOR.join(ocr_tokens)
    return asked + read + ENDINGS[style]


def read_prompt(text: str) -> tuple[str, tuple[str, ...] | None]:
    """The question and the OCR tokens of a prompt in LLaVA's form; None for a missing line."""
    question, _, read = text.removesuffix(SHORT).partition(OCR_LINE)
    if OCR_LINE not in text:
        return question, None
    return question, tuple(read.split(SEPARATOR)) if read else ()
