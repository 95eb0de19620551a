"""LeRobot's preprocessor, made independent of where the dense policy lay.

A preprocessor may name a tokenizer by a path, which holds only there. If its files lie in the
policy folder, they go into the state of the step, which the LeRobot plug-in reads.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from msgspec import Struct
from safetensors.torch import save_file

from einsort_vla.checkpoint.tokenizer import TOKENIZER_FILES
from einsort_vla.errors import CheckpointError
from einsort_vla.reading import as_record, read_object

PREPROCESSOR = "policy_preprocessor.json"
TOKENIZER_STEP = "einsort_tokenizer"  # whose state holds the files of a tokenizer
MAX_STEPS = 64


class _TokenizerConfig(Struct):
    tokenizer_name: str | None = None


class _TokenizerStep(Struct):
    """Of a tokenizer's step what is looked at here."""

    config: _TokenizerConfig


def carry_tokenizer(folder: Path, on_name: Callable[[str], None] = lambda name: None) -> None:
    """Store the tokenizer of a copied policy folder in its preprocessor, if the folder has it.

    Args:
        folder: of the copy.
        on_name: is told the name of a file before it is written.

    Raises:
        CheckpointError: the preprocessor's JSON is damaged.
    """
    path = folder / PREPROCESSOR
    if not path.is_file():
        return
    content = read_object(path)
    steps = content.get("steps", [])
    as_record(steps, list[dict[str, Any]], f"{path}: its list of steps")
    if len(steps) > MAX_STEPS:
        raise CheckpointError(f"{path} has {len(steps)} steps; {MAX_STEPS} are the most.")
    for number, step in enumerate(steps):
        if step.get("registry_name") == "tokenizer_processor":
            name = as_record(step, _TokenizerStep, f"{path}: step {number}").config.tokenizer_name
            _store(folder, number, step, name, on_name)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _store(
    folder: Path,
    number: int,
    step: dict[str, Any],
    tokenizer: str | None,
    on_name: Callable[[str], None],
) -> None:
    """Move the tokenizer's files that the folder has into the state of a step."""
    own = folder / Path(tokenizer or "").name
    files = [own / name for name in TOKENIZER_FILES if (own / name).is_file()]
    if own == folder or not files:
        return  # a name on the hub
    name = f"policy_preprocessor_step_{number}_{TOKENIZER_STEP}.safetensors"
    state = {f.name: torch.from_numpy(np.fromfile(f, dtype=np.uint8)) for f in files}
    on_name(name)
    save_file(state, folder / name)
    del step["config"]["tokenizer_name"]
    step |= {"registry_name": TOKENIZER_STEP, "state_file": name}
