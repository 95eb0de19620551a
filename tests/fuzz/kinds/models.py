"""Compressed policies and models, loaded and asked as users do."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from lerobot.policies.factory import make_pre_post_processors
from lerobot.processor import TokenizerProcessorStep
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

import einsort_vla.huggingface  # noqa: F401  registers the method
from einsort_vla.checkpoint import DenseFolder, compress_folder, plan_folder
from einsort_vla.codec import Codec
from einsort_vla.lerobot import load_policy, quiet_lerobot
from tests.fuzz.change import Target
from tests.fuzz.kinds.folders import ANYTHING
from tests.fuzz.kinds.kind import Kind
from tests.fuzz.signing import sign_manifest
from tests.policies.tiny_policies import PICTURE_PX, pi0

WORDS = {"[UNK]": 0, "push": 1, "the": 2, "cube": 3, "\n": 4}
TASK = "push the cube"
_hosted = contextlib.ExitStack()  # pi0's sizes are made small as long as this process lives


def _tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(WordLevel(WORDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[UNK]")


@contextlib.contextmanager
def _without_hub() -> Iterator[None]:
    """Tokenizers by name are on the hub."""
    with mock.patch.object(TokenizerProcessorStep, "__post_init__", return_value=None):
        yield


def make_policy(folder: Path) -> None:
    """A tiny pi0 with its processors, whose tokenizer lies in the folder, compressed."""
    dense = folder.parent / "policy.dense"
    build = _hosted.enter_context(pi0(folder))
    with quiet_lerobot():
        torch.manual_seed(0)
        policy = build()
        policy.save_pretrained(dense)
        numbers = torch.linspace(0.5, 1.5, 8)
        statistics = {
            "observation.state": {"mean": numbers, "std": numbers},
            "action": {"mean": numbers[:7], "std": numbers[:7]},
        }
        with _without_hub():
            pre, post = make_pre_post_processors(policy.config, dataset_stats=statistics)
            pre.save_pretrained(dense)
            post.save_pretrained(dense)
    path = dense / "policy_preprocessor.json"
    content = json.loads(path.read_text())
    for step in content["steps"]:
        if step.get("registry_name") == "tokenizer_processor":
            step["config"]["tokenizer_name"] = "words"
    path.write_text(json.dumps(content))
    _tokenizer().save_pretrained(dense / "words")
    source = DenseFolder(dense)
    folder.rmdir()
    compress_folder(source, folder, plan_folder(source, 0.5, Codec("scalar")))


def open_policy(folder: Path, out: Path) -> Any:
    """One chunk of actions at one look."""
    policy = load_policy(str(folder))
    rng = np.random.default_rng(0)
    looked = {
        "observation.images.cam": rng.integers(0, 256, (PICTURE_PX, PICTURE_PX, 3), dtype=np.uint8),
        "observation.state": rng.normal(size=8).astype(np.float32), "task": TASK,
    }  # fmt: skip
    return policy.chunk(looked, 0)


def make_model(folder: Path) -> None:
    dense = folder.parent / "model.dense"
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        vocab_size=64, attention_bias=True, initializer_range=0.2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(dense)
    source = DenseFolder(dense)
    folder.rmdir()
    compress_folder(source, folder, plan_folder(source, 0.5, Codec("scalar")))


def open_model(folder: Path, out: Path) -> Any:
    """The logits of a few tokens."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.inference_mode():
        return model(torch.arange(12)[None]).logits


STATES = "policy_p*processor_step_*.safetensors"
KINDS = (
    Kind("policy", make_policy, open_policy, (
        Target("config.json", "json", 2, ANYTHING, ANYTHING),
        Target("model.safetensors", "tensors", 3, ("*:plan.tensors.*.spec*", "*:plan.rate*",
                                                   "*:plan.*.distortion", "*:dropped*")),
        Target("policy_preprocessor.json", "json", 2, ANYTHING, ("*.config*", "*.name")),
        Target("policy_postprocessor.json", "json", 1, ANYTHING, ("*.config*", "*.name")),
        Target(STATES, "tensors", 2.5),
        Target("einsort_manifest.json", "json", 0.3, optional=ANYTHING),
    ), 2, sign_manifest, hosts=()),
    Kind("model", make_model, open_model, (
        # Of a method that Transformers does not know it warns, and reads on.
        Target("config.json", "json", 2, ("*.quantization_config*", "*"), ANYTHING,
               free=("*.quant_method",)),
        Target("model.safetensors", "tensors", 3),
    ), 1.2, hosts=("transformers", "safetensors", "huggingface_hub")),
)  # fmt: skip
