"""Tiny policies of every family with random weights, and an observation each can act on.

Sizes that a family fixes in its source are made small by patches; what it would fetch from the hub
(base models, tokenizers) is made in a folder or replaced.
"""

import contextlib
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from lerobot.configs import FeatureType, PolicyFeature
from transformers import BatchFeature, Qwen3VLConfig, Qwen3VLForConditionalGeneration

PICTURE_PX = 56
CHUNK = 8
PLACE, STATE_PLACE, ACTION_PLACE = 95, 94, 93  # tokens of a picture, a state, an action
FEATURES = {
    "input_features": {
        "observation.images.cam": PolicyFeature(FeatureType.VISUAL, (3, PICTURE_PX, PICTURE_PX)),
        "observation.state": PolicyFeature(FeatureType.STATE, (8,)),
    },
    "output_features": {"action": PolicyFeature(FeatureType.ACTION, (7,))},
    "device": "cpu",
    "push_to_hub": False,
    "chunk_size": CHUNK,
    "n_action_steps": CHUNK,
}
TEXT = {
    "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 160, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
    "rope_parameters": {
        "rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 2, 2],
    },
}  # fmt: skip
VISION = {
    "depth": 2, "num_heads": 2, "patch_size": 14, "spatial_merge_size": 2, "hidden_size": 32,
    "intermediate_size": 64, "out_hidden_size": 48,
}  # fmt: skip
QWEN3 = {"text_config": {**TEXT, "head_dim": 12}, "image_token_id": PLACE,
         "vision_config": {**VISION, "deepstack_visual_indexes": [0],
                           "num_position_embeddings": 16},
         "tie_word_embeddings": True}  # fmt: skip

Build = Callable[[], Any]


def module_of(family: str) -> Any:
    return importlib.import_module(f"lerobot.policies.{family}.modeling_{family}")


def config_of(family: str, name: str, **settings: Any) -> Any:
    module = importlib.import_module(f"lerobot.policies.{family}.configuration_{family}")
    return getattr(module, name)(**{**FEATURES, **settings})


def observation() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    return {
        "observation.images.cam": torch.rand(1, 3, PICTURE_PX, PICTURE_PX, generator=generator),
        "observation.state": torch.rand(1, 8, generator=generator),
        "observation.language.tokens": torch.arange(12)[None],
        "observation.language.attention_mask": torch.ones(1, 12, dtype=torch.bool),
        "task": ["push"],
    }


def qwen_observation(tokens: list[int]) -> dict[str, Any]:
    """One picture of 4 x 4 patches and some tokens, as Qwen's processor gives them."""
    ids = torch.tensor([[5, *[PLACE] * 4, 6, *tokens]])
    generator = torch.Generator().manual_seed(1)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.randn(16, 3 * 2 * 14 * 14, generator=generator),
        "image_grid_thw": torch.tensor([[1, 4, 4]]),
        "mm_token_type_ids": (ids == PLACE).int(),
    }


@contextlib.contextmanager
def act(_: Path) -> Iterator[Build]:
    config = config_of(
        "act", "ACTConfig", pretrained_backbone_weights=None, dim_model=32, n_heads=2,
        dim_feedforward=48, n_encoder_layers=2, n_vae_encoder_layers=1,
    )  # fmt: skip
    yield lambda: module_of("act").ACTPolicy(config)


@contextlib.contextmanager
def pi(family: str, **settings: Any) -> Iterator[Build]:
    """pi0's sizes are fixed in its modules."""
    module, name = module_of(family), {"pi0_fast": "PI0Fast"}.get(family, family.upper())
    settings = {"image_resolution": (PICTURE_PX, PICTURE_PX), **settings}
    config = config_of(family, f"{name}Config", **settings)
    paligemma = module.PaliGemmaForConditionalGenerationWithPiGemma
    expert = getattr(module, "PiGemmaForCausalLM", None)
    vocabulary = 512

    def small_paligemma(config: Any) -> Any:
        vision, text = config.vision_config, config.text_config
        vision.hidden_size, vision.intermediate_size, vision.patch_size = 32, 64, 14
        vision.num_hidden_layers = vision.num_attention_heads = 2
        vision.projection_dim = config.projection_dim = text.hidden_size
        text.vocab_size = config._vocab_size = vocabulary
        config.image_token_index = config.image_token_id = vocabulary - 1
        text.pad_token_id = 0
        return paligemma(config=config)

    def small_expert(config: Any) -> Any:
        config.vocab_size, config.pad_token_id = vocabulary, 0
        return expert(config=config)

    def small_widths(variant: str) -> Any:
        return module.GemmaConfig(
            width=64 if variant == "gemma_2b" else 32, depth=2, mlp_dim=128, num_heads=8,
            num_kv_heads=1, head_dim=16,
        )  # fmt: skip

    patches = {
        "PaliGemmaForConditionalGenerationWithPiGemma": small_paligemma,
        "get_gemma_config": small_widths,
    }
    if expert is not None:
        patches["PiGemmaForCausalLM"] = small_expert
    with contextlib.ExitStack() as stack:
        for target, value in patches.items():
            stack.enter_context(mock.patch.object(module, target, value))
        yield lambda: getattr(module, f"{name}Policy")(config)


def pi0(_: Path) -> Any:
    return pi("pi0", num_inference_steps=3)


def pi05(_: Path) -> Any:
    return pi("pi05", num_inference_steps=3)


@contextlib.contextmanager
def pi0_fast(_: Path) -> Iterator[Build]:
    """Its tokenizers come from the hub; here the tokens' logits stand for the actions."""
    module = module_of("pi0_fast")
    tokenizer = SimpleNamespace(
        bos_token_id=2, convert_tokens_to_ids=lambda _: 1, encode=lambda *_, **__: [3, 4]
    )
    fake = SimpleNamespace(from_pretrained=lambda *_, **__: tokenizer)
    with (
        mock.patch.object(module, "AutoProcessor", fake),
        mock.patch.object(module, "AutoTokenizer", fake),
        mock.patch.object(module.PI0FastPolicy, "detokenize_actions", return_value=None),
        pi("pi0_fast", dtype="float32", max_decoding_steps=3, image_resolution=(224, 224)) as build,
    ):
        yield build


@contextlib.contextmanager
def xvla(_: Path) -> Iterator[Build]:
    florence = {
        "text_config": {
            "model_type": "bart", "d_model": 48, "encoder_layers": 2, "decoder_layers": 2,
            "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64, "vocab_size": 160, "pad_token_id": 0,
        },
        "vision_config": {
            "embed_dim": [16, 32], "num_heads": [2, 2], "num_groups": [2, 2], "depths": [1, 1],
            "patch_size": [7, 3], "patch_stride": [4, 2], "patch_padding": [3, 1],
            "patch_prenorm": [False, True], "window_size": 4, "projection_dim": 48,
        },
        "image_token_id": PLACE,
    }  # fmt: skip
    config = config_of(
        "xvla", "XVLAConfig", florence_config=florence, hidden_size=32, depth=2, num_heads=2,
        num_domains=3, len_soft_prompts=4, dim_time=8, max_len_seq=256, action_mode="auto",
        num_denoising_steps=3,
    )  # fmt: skip
    yield lambda: module_of("xvla").XVLAPolicy(config)


@contextlib.contextmanager
def eo1(folder: Path) -> Iterator[Build]:
    backbone = {"text_config": TEXT, "vision_config": VISION, "image_token_id": PLACE}
    config = config_of("eo1", "EO1Config", vlm_config=backbone, num_denoise_steps=3,
                       dtype="float32")  # fmt: skip
    config.pretrained_path = folder  # or it fetches its base model
    yield lambda: module_of("eo1").EO1Policy(config)


@contextlib.contextmanager
def groot(folder: Path) -> Iterator[Build]:
    """It loads its base model whenever it is built; here that is a folder."""
    module = importlib.import_module("lerobot.policies.groot.groot_n1_7")
    Qwen3VLConfig(**QWEN3).save_pretrained(folder / "qwen")
    sizes = {"num_attention_heads": 4, "attention_head_dim": 12, "num_layers": 2, "dropout": 0.0}
    settings = module.GR00TN17Config(
        model_name=str(folder / "qwen"), backbone_embedding_dim=48, select_layer=1, hidden_size=32,
        input_embedding_dim=48, max_state_dim=8, max_action_dim=7, action_horizon=CHUNK,
        max_num_embodiments=3, max_seq_len=64,
        diffusion_model_cfg={**sizes, "norm_type": "ada_norm", "final_dropout": True,
                             "output_dim": 32, "interleave_self_attention": True,
                             "positional_embeddings": None},
        vl_self_attention_cfg={**sizes, "final_dropout": True, "positional_embeddings": None},
    )  # fmt: skip
    base = module.GR00TN17(settings, load_backbone_weights=False)
    base.save_pretrained(folder / "base")
    config = config_of("groot", "GrootConfig", base_model_path=str(folder / "base"),
                       max_state_dim=8, max_action_dim=7, use_bf16=False)  # fmt: skip
    yield lambda: module_of("groot").GrootPolicy(config)


@contextlib.contextmanager
def vla_jepa(folder: Path) -> Iterator[Build]:
    """Its base models and their processors come from the hub."""
    interface = importlib.import_module("lerobot.policies.vla_jepa.qwen_interface")
    Qwen3VLForConditionalGeneration(Qwen3VLConfig(**QWEN3)).save_pretrained(folder / "qwen")
    config = config_of(
        "vla_jepa", "VLAJEPAConfig", qwen_model_name=str(folder / "qwen"),
        enable_world_model=False, num_embodied_action_tokens_per_instruction=4,
        action_hidden_size=32, action_num_layers=2, action_num_heads=2,
        action_attention_head_dim=16, num_target_vision_tokens=4, torch_dtype="float32",
    )  # fmt: skip
    processor = SimpleNamespace(tokenizer=_Tokenizer(), apply_chat_template=_apply_chat_template)
    fake = SimpleNamespace(from_pretrained=lambda *_, **__: processor)
    with mock.patch.object(interface, "AutoProcessor", fake):
        yield lambda: module_of("vla_jepa").VLAJEPAPolicy(config)


class _Tokenizer:
    """Action tokens from 100 on; the embodied action is the last."""

    def __init__(self) -> None:
        self._vocabulary: dict[str, int] = {}

    def get_vocab(self) -> dict[str, int]:
        return self._vocabulary

    def add_tokens(self, tokens: list[str], special_tokens: bool) -> None:
        for token in tokens:
            self._vocabulary[token] = 100 + len(self._vocabulary)

    def convert_tokens_to_ids(self, token: str) -> int:
        return self._vocabulary[token]

    def __len__(self) -> int:
        return 160


def _apply_chat_template(*_: Any, **__: Any) -> BatchFeature:
    return BatchFeature(qwen_observation([100 + 4 * CHUNK] * 4))


FAMILIES = {
    build.__name__: build for build in (act, pi0, pi05, pi0_fast, xvla, eo1, groot, vla_jepa)
}


def act_once(policy: Any) -> torch.Tensor:
    """What the policy would do; the last hidden state of tokens where the tokens are the action."""
    batch = observation()
    if policy.name.endswith("eo1"):
        batch = {**batch, **qwen_observation([STATE_PLACE, *[ACTION_PLACE] * CHUNK]),
                 "state_token_id": STATE_PLACE, "action_token_id": ACTION_PLACE}  # fmt: skip
        del batch["observation.images.cam"], batch["task"]
    if policy.name.endswith("groot"):
        batch = {**qwen_observation([7, 8, 9]), "embodiment_id": torch.tensor([1]),
                 "state": observation()["observation.state"][:, None]}  # fmt: skip
    logits: list[torch.Tensor] = []
    if policy.name.endswith("pi0_fast"):
        head = policy.model.paligemma_with_expert.paligemma.lm_head
        head.register_forward_hook(lambda _, __, out: logits.append(out[..., -1, :]))
    torch.manual_seed(0)  # of the flow's noise
    with torch.inference_mode():
        actions = policy.eval().predict_action_chunk(batch)
    return torch.stack(logits[:1]) if logits else actions
