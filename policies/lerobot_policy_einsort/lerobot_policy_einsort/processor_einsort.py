"""A tokenizer that travels in the state of the preprocessor, not by a name on the hub.

It is built in memory: what the state names its files is never written, and nothing that they say
chooses a class.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from lerobot.processor import ProcessorStepRegistry, TokenizerProcessorStep
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from einsort_vla.checkpoint.processors import TOKENIZER_STEP
from einsort_vla.checkpoint.tokenizer import TOKENIZER_FILES, TokenText
from einsort_vla.errors import CheckpointError, panics_as_errors
from einsort_vla.lerobot.processors import check_tokenizer
from einsort_vla.reading import parse_json

_TOKENIZER, _CONFIG, _SPECIAL = TOKENIZER_FILES
_SOURCE = f"the state of {TOKENIZER_STEP}"


class _Token(msgspec.Struct):
    """A token as older files write it; of it, the text counts."""

    content: TokenText


_Text = TokenText | _Token | None


class _Special(msgspec.Struct):
    """What is taken of `special_tokens_map.json`; the rest has no part in reading a sentence."""

    bos_token: _Text = None
    eos_token: _Text = None
    unk_token: _Text = None
    sep_token: _Text = None
    pad_token: _Text = None
    cls_token: _Text = None
    mask_token: _Text = None


class _Config(_Special):
    """What is taken of `tokenizer_config.json`."""

    model_max_length: float | None = None
    padding_side: str | None = None
    truncation_side: str | None = None
    model_input_names: list[str] | None = None
    clean_up_tokenization_spaces: bool | None = None


@ProcessorStepRegistry.register(TOKENIZER_STEP)
@dataclass
class StoredTokenizerStep(TokenizerProcessorStep):
    """LeRobot's tokenizer step; its files are uint8 tensors of the step's state."""

    files: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Nothing: the tokenizer comes with the state."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        check_tokenizer(state, _SOURCE)
        self.files = {name: content.clone() for name, content in state.items()}
        texts = {name: content.cpu().numpy().tobytes() for name, content in state.items()}
        self.input_tokenizer = tokenizer_of(texts)

    def state_dict(self) -> dict[str, Tensor]:
        return self.files

    def get_config(self) -> dict[str, Any]:
        return {k: v for k, v in super().get_config().items() if k != "tokenizer_name"}


def tokenizer_of(files: Mapping[str, bytes]) -> PreTrainedTokenizerFast:
    """The fast tokenizer that its files describe, by their names.

    Raises:
        CheckpointError: one is damaged.
    """
    known = parse_json(files.get(_CONFIG, b"{}"), _Config, f"{_SOURCE}, {_CONFIG}")
    special = parse_json(files.get(_SPECIAL, b"{}"), _Special, f"{_SOURCE}, {_SPECIAL}")
    given = {**_given(known), **_given(special)}
    if "model_max_length" in given:
        given["model_max_length"] = int(given["model_max_length"])
    try:
        with panics_as_errors():
            tokenizer = Tokenizer.from_str(files[_TOKENIZER].decode())
            return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **given)
    except Exception as error:  # tokenizers raises plain ones
        raise CheckpointError(f"{_SOURCE}, {_TOKENIZER} is damaged: {error}") from error


def _given(record: msgspec.Struct) -> dict[str, Any]:
    found = {name: getattr(record, name) for name in record.__struct_fields__}
    return {
        name: value.content if isinstance(value, _Token) else value
        for name, value in found.items()
        if value is not None
    }
