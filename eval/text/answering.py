"""Models that answer: greedy decoding in batches, by language models and by ones that see."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from einsort_vla.checkpoint import check_tokenizer_folder
from einsort_vla.errors import CheckpointError, importing, panics_as_errors, reason_of
from einsort_vla.families import without_foreign_code

Shot = tuple[str, str]


@dataclass(frozen=True)
class Decoding:
    """What decides an answer besides the weights."""

    max_new_tokens: int = 16
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    shots: tuple[Shot, ...] = ()  # worked examples before each question: prompt and answer
    batch: int = 1  # questions answered in one pass


class AnsweringModel(ABC):
    """Answers several questions in one pass; always the most likely next token.

    Attributes:
        is_seeing: whether it takes pictures.
        model: the Transformers model, with coded layers where the folder has them.
    """

    is_seeing = False
    _classes: tuple[str, str]  # of Transformers: of the model, and of its tokenizer or processor

    def __init__(self, folder: Path, decoding: Decoding) -> None:
        import transformers

        of_model, of_processor = (getattr(transformers, name) for name in self._classes)
        self._decoding, self._processor = decoding, _load(of_processor, folder)
        model = _load(of_model, folder, dtype=decoding.dtype)
        self.model: Any = model.to(decoding.device).eval()
        # Whether the model was trained on a chat, and says how it is written.
        self._has_turns = getattr(self._processor, "chat_template", None) is not None
        self._tokenizer: Any = getattr(self._processor, "tokenizer", self._processor)
        self._tokenizer.padding_side = "left"  # answers begin where prompts end
        if self._tokenizer.pad_token_id is None:
            if self._tokenizer.eos_token is None:
                raise CheckpointError(
                    f"the tokenizer in {folder} has neither a padding nor an end token, so "
                    "prompts of different length cannot be answered together, nor an answer end. "
                    "Set eos_token in its tokenizer_config.json."
                )
            self._tokenizer.pad_token = self._tokenizer.eos_token

    @torch.inference_mode()
    def answer(self, prompts: Sequence[str], images: Sequence[Image.Image | None]) -> list[str]:
        """One answer a prompt; a model without turns goes on writing, so its first line is it."""
        inputs = self.encode(prompts, images)
        produced = self.model.generate(
            **inputs,
            do_sample=False,
            num_beams=1,
            max_new_tokens=self._decoding.max_new_tokens,
            pad_token_id=self._tokenizer.pad_token_id,
        )
        new = produced[:, inputs["input_ids"].shape[1] :]
        texts = [text.strip() for text in self._tokenizer.batch_decode(new, True)]
        return texts if self._has_turns else [text.partition("\n")[0].strip() for text in texts]

    @torch.inference_mode()
    def read(self, prompt: str, image: Image.Image | None) -> None:
        """One forward pass over a question, without an answer."""
        inputs = dict(self.encode([prompt], [image]))
        if (cache := inputs.get("past_key_values")) is not None:
            inputs["input_ids"] = inputs["input_ids"][:, cache.get_seq_length() :]
        self.model(**inputs)

    @abstractmethod
    def encode(
        self, prompts: Sequence[str], images: Sequence[Image.Image | None]
    ) -> Mapping[str, Any]:
        """What the model reads, padded on the left: input_ids (batch, length) and the rest."""


class LanguageModel(AnsweringModel):
    """Reads prompts alone; worked examples are read once and kept in the cache."""

    _classes = ("AutoModelForCausalLM", "AutoTokenizer")

    def __init__(self, folder: Path, decoding: Decoding) -> None:
        super().__init__(folder, decoding)
        self._prefix = self._write(decoding.shots)
        self._cache: Any = None

    def encode(
        self, prompts: Sequence[str], images: Sequence[Image.Image | None]
    ) -> Mapping[str, Any]:
        shots = self._decoding.shots
        rest = [self._write(shots, prompt).removeprefix(self._prefix) for prompt in prompts]
        inputs = dict(self._ids(rest, special=not self._prefix and not self._has_turns))
        if self._prefix:
            before = self._ids([self._prefix], special=not self._has_turns)
            self._add_prefix(inputs, before["input_ids"], len(prompts))
        return inputs

    def _add_prefix(self, inputs: dict[str, Any], before: Tensor, n: int) -> None:
        if self._cache is None:
            self._cache = self.model(input_ids=before, use_cache=True).past_key_values
        cache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(n)
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        repeated = before.expand(n, -1)
        inputs["input_ids"] = torch.cat([repeated, ids], dim=1)
        inputs["attention_mask"] = torch.cat([torch.ones_like(repeated), mask], dim=1)
        inputs["past_key_values"] = cache

    def _ids(self, texts: list[str], special: bool) -> Mapping[str, Tensor]:
        found = self._tokenizer(
            texts, return_tensors="pt", padding=True, add_special_tokens=special
        )
        return {
            key: found[key].to(self._decoding.device) for key in ("input_ids", "attention_mask")
        }

    def _write(self, shots: Sequence[Shot], prompt: str | None = None) -> str:
        """Worked examples and the question, in the form the model was trained on."""
        if not self._has_turns:
            told = "".join(f"{asked}{_gap(asked)}{answer}\n\n" for asked, answer in shots)
            return told if prompt is None else f"{told}{prompt}{_gap(prompt)}".rstrip(" ")
        turns = [
            {"role": role, "content": content}
            for shot in shots
            for role, content in zip(("user", "assistant"), shot, strict=True)
        ]
        if prompt is None:
            return self._tokenizer.apply_chat_template(turns, tokenize=False) if turns else ""
        turns.append({"role": "user", "content": prompt})
        return self._tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=True
        )


class ImageTextModel(AnsweringModel):
    """Sees the picture and reads the prompt."""

    is_seeing = True
    _classes = ("AutoModelForImageTextToText", "AutoProcessor")

    def __init__(self, folder: Path, decoding: Decoding) -> None:
        super().__init__(folder, decoding)
        if not self._has_turns and getattr(self._processor, "image_token", None) is None:
            raise CheckpointError(
                f"the processor in {folder} has neither a chat template nor an image token, so "
                "there is no way to say where the picture goes."
            )

    def encode(
        self, prompts: Sequence[str], images: Sequence[Image.Image | None]
    ) -> Mapping[str, Any]:
        texts = [self._write(prompt) for prompt in prompts]
        pictures = [[image] for image in images]
        inputs = self._processor(text=texts, images=pictures, padding=True, return_tensors="pt")
        return inputs.to(self._decoding.device, dtype=self._decoding.dtype)

    def _write(self, prompt: str) -> str:
        if not self._has_turns:
            return f"{self._processor.image_token}{prompt}"
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        return self._processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )


def sees(folder: Path) -> bool:
    """Whether the model in a folder takes pictures.

    Raises:
        CheckpointError: the installed Transformers knows no such model that answers.
        MissingDependency: transformers is not installed.
    """
    with importing("transformers cannot be imported", "pip install 'einsort-vla[transformers]'"):
        import transformers
    from transformers.models.auto import modeling_auto

    config = _load(transformers.AutoConfig, folder)
    if type(config) in transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return True
    if config.model_type in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return False
    raise CheckpointError(
        f"{folder} holds a {config.model_type}, which neither sees and answers "
        "(AutoModelForImageTextToText) nor answers (AutoModelForCausalLM)."
    )


def load_answering(folder: Path, decoding: Decoding) -> AnsweringModel:
    """The model in a folder, dense or compressed.

    Raises:
        CheckpointError: it cannot be loaded, or lacks a token that is needed.
    """
    from transformers.utils.logging import disable_progress_bar

    import einsort_vla.huggingface  # noqa: F401  registers the coded layers with Transformers

    check_tokenizer_folder(folder)
    disable_progress_bar()  # of half a second, which leaves garbage in a log
    return (ImageTextModel if sees(folder) else LanguageModel)(folder, decoding)


def _load(auto: Any, folder: Path, **options: Any) -> Any:
    """By one of Transformers' Auto classes, without running code from the folder."""
    try:
        with panics_as_errors(), without_foreign_code():
            return auto.from_pretrained(folder, **options)
    except Exception as error:  # whatever an incomplete or unknown model raises
        raise CheckpointError(
            f"{folder} cannot be loaded by {auto.__name__} ({reason_of(error)})."
        ) from error


def _gap(prompt: str) -> str:
    return " " if prompt.endswith(":") else "\n"
