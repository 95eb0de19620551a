"""The architecture of the reference policy: LeRobot's own SmolVLA at a small size."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from einsort_vla.lerobot import quiet_lerobot
from einsort_vla.runtime.observation import STATE_KEY
from envs.libero.benchmark import load_task, n_tasks
from envs.libero.observation import FEATURES

LANGUAGE_SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10")
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<fake_token_around_image>", "<image>",
            "<global-img>", "<end_of_utterance>")  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """Sizes of the reference policy; widths in units, pictures in pixels."""

    picture_px: int = 96
    render_px: int = 128
    patch_px: int = 16
    vision_width: int = 192
    vision_layers: int = 5
    vision_heads: int = 3
    pixel_shuffle: int = 2
    text_width: int = 256
    text_ffn: int = 640
    text_layers: int = 4
    text_heads: int = 4
    text_kv_heads: int | None = None  # as many as heads
    expert_width_multiplier: float = 0.75
    chunk_size: int = 8
    n_action_steps: int = 4
    flow_steps: int = 5
    language_tokens: int = 24
    vocabulary: int = 512


def build_vlm_folder(folder: Path, shape: Shape) -> None:
    """Write configuration, tokenizer and processor of the backbone; no weights."""
    from transformers import SmolVLMConfig, SmolVLMImageProcessor, SmolVLMProcessor
    from transformers.models.smolvlm.video_processing_smolvlm import SmolVLMVideoProcessor

    tokenizer = _train_tokenizer(shape)
    special = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    text = dict(
        model_type="llama",
        hidden_size=shape.text_width,
        intermediate_size=shape.text_ffn,
        num_hidden_layers=shape.text_layers,
        num_attention_heads=shape.text_heads,
        num_key_value_heads=shape.text_kv_heads or shape.text_heads,
        head_dim=shape.text_width // shape.text_heads,
        vocab_size=shape.vocabulary,
        rms_norm_eps=1e-5,
        max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=False,
        initializer_range=0.04,
        **special,
    )
    vision = {
        "hidden_size": shape.vision_width,
        "intermediate_size": 4 * shape.vision_width,
        "num_hidden_layers": shape.vision_layers,
        "num_attention_heads": shape.vision_heads,
        "image_size": shape.picture_px,
        "patch_size": shape.patch_px,
    }
    settings: dict[str, Any] = {
        "text_config": text,
        "vision_config": vision,
        "scale_factor": shape.pixel_shuffle,
        "image_token_id": tokenizer.convert_tokens_to_ids("<image>"),
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": False,
    }
    SmolVLMConfig(**settings).save_pretrained(folder)
    longest = {"longest_edge": shape.picture_px}
    SmolVLMProcessor(
        image_processor=SmolVLMImageProcessor(size=longest, max_image_size=longest, resample=1),
        tokenizer=tokenizer,
        video_processor=SmolVLMVideoProcessor(size=longest, max_image_size=longest),
        image_seq_len=(shape.picture_px // shape.patch_px // shape.pixel_shuffle) ** 2,
        chat_template="{% for m in messages %}{{ m['content'] }}{% endfor %}",
    ).save_pretrained(folder)


def _train_tokenizer(shape: Shape) -> Any:
    """A byte-level BPE trained on the sentences of the four LIBERO suites."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=shape.vocabulary,
        special_tokens=list(_SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    sentences = [
        load_task(suite, i).language for suite in LANGUAGE_SUITES for i in range(n_tasks(suite))
    ]
    tokenizer.train_from_iterator(sentences, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        extra_special_tokens={
            "fake_image_token": "<fake_token_around_image>",
            "image_token": "<image>",
            "global_image_token": "<global-img>",
            "end_of_utterance_token": "<end_of_utterance>",
        },
        padding_side="left",
        model_max_length=2048,
    )


def build_policy(vlm_folder: Path, shape: Shape) -> Any:
    """A SmolVLAPolicy with fresh random weights, all of them trainable but the unused lm_head."""
    from lerobot.configs import FeatureType, PolicyFeature
    from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
    from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

    picture = PolicyFeature(FeatureType.VISUAL, (3, shape.render_px, shape.render_px))
    config = SmolVLAConfig(
        vlm_model_name=str(vlm_folder),
        load_vlm_weights=False,
        device="cpu",
        push_to_hub=False,
        num_vlm_layers=shape.text_layers,
        chunk_size=shape.chunk_size,
        n_action_steps=shape.n_action_steps,
        num_steps=shape.flow_steps,
        resize_imgs_with_padding=(shape.picture_px, shape.picture_px),
        max_state_dim=FEATURES.state_size,
        max_action_dim=FEATURES.action_size,
        tokenizer_max_length=shape.language_tokens,
        pad_language_to="max_length",
        freeze_vision_encoder=False,
        train_expert_only=False,
        expert_width_multiplier=shape.expert_width_multiplier,
        input_features={
            **dict.fromkeys(FEATURES.pictures, picture),
            STATE_KEY: PolicyFeature(FeatureType.STATE, (FEATURES.state_size,)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (FEATURES.action_size,))},
    )
    with quiet_lerobot():
        policy = SmolVLAPolicy(config)
    _prepare_for_scratch(policy, shape)
    return policy


def _prepare_for_scratch(policy: Any, shape: Shape) -> None:
    # LeRobot freezes the last VLM layer and the text norm even with train_expert_only=False.
    backbone = policy.model.vlm_with_expert.vlm
    for parameter in policy.parameters():
        parameter.requires_grad_(True)
    backbone.lm_head.requires_grad_(False)
    # embed_prefix multiplies picture embeddings by sqrt(width): start them at unit size.
    for weight in backbone.model.connector.parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=1 / math.sqrt(weight.shape[1] * shape.text_width))
