"""A tokenizer that travels in the state of the preprocessor, not by a name on the hub."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lerobot.processor import ProcessorStepRegistry, TokenizerProcessorStep
from torch import Tensor
from transformers import AutoTokenizer


@ProcessorStepRegistry.register("einsort_tokenizer")
@dataclass
class StoredTokenizerStep(TokenizerProcessorStep):
    """LeRobot's tokenizer step; its files are uint8 tensors of the step's state."""

    files: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Nothing: the tokenizer comes with the state."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.files = dict(state)
        with tempfile.TemporaryDirectory() as folder:
            for name, content in state.items():
                (Path(folder) / name).write_bytes(content.cpu().numpy().tobytes())
            self.input_tokenizer = AutoTokenizer.from_pretrained(folder)

    def state_dict(self) -> dict[str, Tensor]:
        return self.files

    def get_config(self) -> dict[str, Any]:
        return {k: v for k, v in super().get_config().items() if k != "tokenizer_name"}
