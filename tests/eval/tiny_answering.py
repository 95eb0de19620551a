"""Tiny models that answer, with random weights and tokenizers of a few words."""

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

WORDS = (
    "what", "does", "the", "sign", "say?", "What", "Reference", "OCR", "token:", "STOP", "GO,",
    "NORTH,", "Answer", "question", "using", "a", "single", "word", "or", "phrase.", "stop", "go",
    "number", "is", "on", "door?", "7", "21,", "user", "assistant", "Answer:",
)  # fmt: skip
SPECIAL = (
    "<pad>", "<s>", "</s>", "<unk>", "<image>", "<fake_token_around_image>", "<global-img>",
    "<end_of_utterance>", "<video>",
)  # fmt: skip
CHAT = (
    "{% for message in messages %}<s> {{ message['role'] }} "
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %} </s> {% endfor %}"
    "{% if add_generation_prompt %}<s> assistant {% endif %}"
)
TEXT = {
    "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 64, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "initializer_range": 0.4,
}  # fmt: skip


def tokenizer(with_ends: bool = True, chat: bool = True) -> PreTrainedTokenizerFast:
    vocabulary = {word: k for k, word in enumerate((*SPECIAL, *WORDS))}
    words = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = WhitespaceSplit()
    words.add_special_tokens(list(SPECIAL))
    ends = {"pad_token": "<pad>", "eos_token": "</s>"} if with_ends else {}
    made = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", **ends)
    made.add_special_tokens({"additional_special_tokens": list(SPECIAL[4:])})
    made.chat_template = CHAT if chat else None
    return made


def language_model(folder: Path, with_ends: bool = True, chat: bool = True) -> Path:
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**TEXT))
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer(with_ends, chat).save_pretrained(folder)
    return folder


def image_text_model(folder: Path, chat: bool = True) -> Path:
    """A SmolVLM, whose picture of 28 x 28 pixels becomes one token."""
    torch.manual_seed(0)
    config = transformers.SmolVLMConfig(
        text_config={"model_type": "llama", **TEXT},
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "image_size": 28, "patch_size": 14, "initializer_range": 0.4,
        },
        scale_factor=2, image_token_id=SPECIAL.index("<image>"), pad_token_id=0,
    )  # fmt: skip
    model = transformers.SmolVLMForConditionalGeneration(config)
    model.to(torch.bfloat16).save_pretrained(folder)
    edge = {"longest_edge": 28}
    transformers.SmolVLMProcessor(
        transformers.SmolVLMImageProcessor(
            size=edge, max_image_size=edge, do_image_splitting=False, resample=2
        ),
        tokenizer(),
        transformers.SmolVLMVideoProcessor(),
        image_seq_len=1,
        chat_template=CHAT if chat else None,
    ).save_pretrained(folder)
    return folder
