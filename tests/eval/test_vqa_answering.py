"""Batched greedy answers: the same alone as together, with pictures, and with worked examples."""

import pytest
import torch
from PIL import Image

pytest.importorskip("transformers")

from einsort_vla.checkpoint import DenseFolder
from einsort_vla.errors import CheckpointError
from eval.text.answering import Decoding, load_answering, sees
from tests.eval.tiny_answering import image_text_model, language_model

PROMPTS = (
    "what does the sign say?",
    "what number is on the door? Reference OCR token: GO, 7 STOP Answer the question",
    "what",
)
SHOTS = (("what does the sign say? STOP", "stop"), ("what number is on the door? 7", "7"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return language_model(tmp_path_factory.mktemp("language"))


def test_answers_do_not_depend_on_who_is_asked_together(folder):
    model = load_answering(folder, Decoding(max_new_tokens=6))
    together = model.answer(PROMPTS, [None] * 3)
    assert together == [model.answer([prompt], [None])[0] for prompt in PROMPTS]
    assert len(set(together)) > 1


def test_the_most_likely_token_is_taken_each_time(folder):
    """Against a loop over whole forward passes, without cache, padding and `generate`."""
    model = load_answering(folder, Decoding(max_new_tokens=5))
    ids = model.encode([PROMPTS[1]], [None])["input_ids"]
    n_prompt = ids.shape[1]
    with torch.inference_mode():
        for _ in range(5):
            best = model.model(ids).logits[:, -1].argmax(-1, keepdim=True)
            ids = torch.cat([ids, best], dim=1)
            if best.item() == 2:
                break
    expected = model._tokenizer.decode(ids[0, n_prompt:], skip_special_tokens=True).strip()
    assert model.answer([PROMPTS[1]], [None]) == [expected]


@pytest.mark.parametrize("chat", [True, False])
def test_worked_examples_are_read_once_and_answer_alike(tmp_path, chat):
    """From the cache, against the same words as one long prompt."""
    folder = language_model(tmp_path / "model", chat=chat)
    shown = load_answering(folder, Decoding(6, shots=SHOTS))
    plain = load_answering(folder, Decoding(6))
    for _ in range(2):  # the cache must be the same after it was used
        found = shown.answer(PROMPTS, [None] * 3)
        for prompt, answer in zip(PROMPTS, found, strict=True):
            ids = plain._tokenizer(
                shown._write(SHOTS, prompt), return_tensors="pt", add_special_tokens=not chat
            )
            new = plain.model.generate(**ids, do_sample=False, max_new_tokens=6, pad_token_id=0)
            text = plain._tokenizer.decode(new[0, ids.input_ids.shape[1] :], True).strip()
            assert answer == text


def test_a_model_that_sees_is_shown_the_picture(tmp_path):
    folder = image_text_model(tmp_path / "seeing")
    assert sees(folder)
    model = load_answering(folder, Decoding(max_new_tokens=6))
    pictures = [Image.new("RGB", (40, 30), colour) for colour in ("black", "white", "red")]
    together = model.answer(PROMPTS, pictures)
    alone = [
        model.answer([prompt], [image])[0] for prompt, image in zip(PROMPTS, pictures, strict=True)
    ]
    assert together == alone
    logits = [
        model.model(**model.encode(PROMPTS[:1], [picture])).logits for picture in pictures[:2]
    ]
    assert not torch.equal(*logits)


def test_a_model_without_turns_goes_on_writing(tmp_path):
    folder = language_model(tmp_path / "model", chat=False)
    model = load_answering(folder, Decoding(max_new_tokens=4))
    ids = model.encode(["what does"], [None])["input_ids"]
    assert model._tokenizer.decode(ids[0]) == "what does"


def test_what_cannot_answer_is_refused(tmp_path, folder, tiny_policy_folder):
    endless = language_model(tmp_path / "endless", with_ends=False)
    with pytest.raises(CheckpointError, match="neither a padding nor an end token"):
        load_answering(endless, Decoding())
    placeless = image_text_model(tmp_path / "placeless", chat=False)
    assert load_answering(placeless, Decoding())  # its processor names the picture's token
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(CheckpointError, match="holds a vit, which neither sees and answers"):
        sees(tmp_path / "bert")
    with pytest.raises(CheckpointError, match="cannot be loaded by AutoConfig"):
        sees(tiny_policy_folder / "vlm")
    assert not sees(folder)
    assert DenseFolder(folder).in_model
