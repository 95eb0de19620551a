"""Models of Transformers that generate with the EinSort KV cache, against the exact one."""

import pytest
import torch

pytest.importorskip("transformers")

from transformers import (
    DynamicCache,
    EncoderDecoderCache,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers import MistralForCausalLM as Mistral

from einsort_vla.cache import EinSortCache
from tests.caching import error

SIZES = {
    "vocab_size": 64, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 16, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES)).eval()
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and "embed" not in name:
            parameter.data *= 6  # so that attention attends to something
    return model


def test_rate_zero_is_the_exact_cache(model):
    tokens = torch.randint(2, 64, (2, 20), generator=torch.Generator().manual_seed(0))
    kwargs = {"max_new_tokens": 6, "do_sample": False}
    assert torch.equal(
        model.generate(tokens, past_key_values=EinSortCache(rate=0), **kwargs),
        model.generate(tokens, past_key_values=DynamicCache(), **kwargs),
    )


@pytest.mark.parametrize("codec", ["curve", "scalar", "network"])
def test_logits_come_near_those_of_the_exact_cache(model, codec):
    tokens = torch.randint(2, 64, (1, 48), generator=torch.Generator().manual_seed(0))

    def after(cache):
        with torch.inference_mode():
            model(tokens[:, :40], past_key_values=cache)
            return model(tokens[:, 40:], past_key_values=cache).logits

    expected = after(DynamicCache())
    found = [error(after(EinSortCache(codec, rate)), expected) for rate in (0.25, 0.75)]
    assert 0 < found[0] < 0.03
    assert found[0] < found[1]


@pytest.mark.parametrize("rate", [0.3, 0.75, 0.875])
def test_prompts_of_any_length_are_generated_from(model, rate):
    """What is too short stays exact: then the very tokens of the exact cache come out."""
    kwargs = {"max_new_tokens": 5, "do_sample": False}
    for n in (1, 2, 4, 9, 16, 30):
        tokens = torch.randint(2, 64, (1, n), generator=torch.Generator().manual_seed(n))
        for block in (0, 1, 3):
            cache = EinSortCache("curve", rate, block)
            found = model.generate(tokens, past_key_values=cache, **kwargs)
            assert cache.get_seq_length() == n + 4
            assert cache.report().bytes_stored == cache.nbytes()
            if not cache.report().coded_entries:
                exact = model.generate(tokens, past_key_values=DynamicCache(), **kwargs)
                assert torch.equal(found, exact)
    assert cache.report().coded_entries


@pytest.mark.parametrize("n_layers", [1, 2])
def test_a_model_with_an_encoder_decodes_from_its_first_token_on(n_layers):
    torch.manual_seed(0)
    sizes = {"d_model": 32, "d_ff": 32, "num_layers": n_layers, "num_heads": 2, "d_kv": 16}
    config = T5Config(**sizes, vocab_size=64, decoder_start_token_id=0, eos_token_id=None)
    model = T5ForConditionalGeneration(config).eval()
    for parameter in model.parameters():
        parameter.data *= 3  # so that tokens differ
    cache = EinSortCache(rate=0.7, block=8)
    tokens = torch.randint(3, 64, (2, 40), generator=torch.Generator().manual_seed(0))
    kwargs = {"max_new_tokens": 50, "do_sample": False}
    expected = model.generate(tokens, **kwargs)
    model.generate(tokens, past_key_values=cache, **kwargs)
    assert cache.get_seq_length() == 50
    assert cache.report().coded_entries > 0
    both = EncoderDecoderCache(EinSortCache(rate=0), EinSortCache(rate=0))
    for exact in (EinSortCache(rate=0), both):
        assert torch.equal(model.generate(tokens, past_key_values=exact, **kwargs), expected)
    coded = EncoderDecoderCache(EinSortCache(rate=0), EinSortCache(rate=0.1))
    found = model.generate(tokens, past_key_values=coded, **kwargs)
    assert torch.equal(found[:, :2], expected[:, :2])


@pytest.mark.parametrize("block", [0, 4])
def test_beam_search_finds_what_a_recomputation_finds(model, block):
    """Every beam's score, recomputed along its tokens with a cache of one sequence of its own."""
    prompt = torch.randint(2, 64, (2, 24), generator=torch.Generator().manual_seed(1))
    found = model.generate(
        prompt, past_key_values=EinSortCache("curve", 0.6, block), num_beams=3, do_sample=False,
        num_return_sequences=2, max_new_tokens=9, return_dict_in_generate=True, output_scores=True,
        length_penalty=0.0,
    )  # fmt: skip
    for tokens, score in zip(found.sequences, found.sequences_scores, strict=True):
        cache, total = EinSortCache("curve", 0.6, block), 0.0
        with torch.inference_mode():
            logits = model(tokens[None, :24], past_key_values=cache).logits[0, -1]
            for token in tokens[24:]:
                total += float(logits.log_softmax(-1)[token])
                logits = model(token.view(1, 1), past_key_values=cache).logits[0, -1]
        assert float(score) == pytest.approx(total, abs=1e-3)


def test_left_padding_changes_nothing_but_rounding(model):
    """The padded row generates what the row alone does, with a cache coded as finely as can be."""
    tokens = torch.randint(2, 64, (1, 20), generator=torch.Generator().manual_seed(2))
    padded = torch.cat([torch.zeros(1, 6, dtype=torch.long), tokens], 1)
    longer = torch.randint(2, 64, (1, 26), generator=torch.Generator().manual_seed(3))
    mask = torch.cat([(padded != 0).long(), torch.ones(1, 26, dtype=torch.long)])
    kwargs = {"max_new_tokens": 8, "do_sample": False}
    for codec in ("curve", "scalar"):
        alone = model.generate(tokens, past_key_values=EinSortCache(codec, 0.3), **kwargs)
        both = model.generate(
            torch.cat([padded, longer]), attention_mask=mask,
            past_key_values=EinSortCache(codec, 0.3), **kwargs,
        )  # fmt: skip
        assert torch.equal(both[0, 26:], alone[0, 20:])


def test_a_sliding_window_is_left_to_the_mask():
    torch.manual_seed(0)
    model = Mistral(MistralConfig(**SIZES, sliding_window=8)).eval()
    tokens = torch.randint(2, 64, (1, 30))
    outputs = []
    for cache in (DynamicCache(config=model.config), EinSortCache(rate=0), EinSortCache(rate=0.2)):
        with torch.inference_mode():
            model(tokens[:, :20], past_key_values=cache)
            outputs.append(model(tokens[:, 20:], past_key_values=cache).logits)
    torch.testing.assert_close(outputs[1], outputs[0])
    assert 0 < error(outputs[2], outputs[0]) < 1e-3
