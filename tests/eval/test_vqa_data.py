"""Questions in all the forms they come in; prompts; what is missing is named."""

import json

import pytest
from PIL import Image

from einsort_vla.errors import CheckpointError, UsageError
from eval.text.vqa_data import load_hub, load_json, load_jsonl
from eval.text.vqa_prompts import prompt_for, read_prompt

RECORDS = [
    {"image_id": "a", "question_id": 1, "question": "what is it?", "answers": ["tea"] * 10},
    {"image_id": "a", "question_id": 2, "question": "whose Tea?", "answers": [""] * 10},
    {"image_id": "b", "question_id": 3, "question": "how much?", "ocr_tokens": ["$2", "TEA"]},
]
LLAVA = (
    "What is it?\nReference OCR token: $2, TEA\nAnswer the question using a single word or phrase."
)


@pytest.fixture
def original(tmp_path):
    """TextVQA's original files."""
    folder = tmp_path / "train_images"
    folder.mkdir()
    for name in "ab":
        Image.new("RGB", (8, 8), "red").save(folder / f"{name}.jpg")
    path = tmp_path / "TextVQA_val.json"
    path.write_text(json.dumps({"dataset_type": "val", "data": RECORDS}))
    return path


@pytest.mark.parametrize(
    ("style", "tokens", "prompt"),
    [
        ("lmms", None, "Whose tea?\nAnswer the question using a single word or phrase."),
        (
            "lmms",
            ["$2", "TEA"],
            "Whose tea?\nReference OCR token: $2, TEA\n"
            "Answer the question using a single word or phrase.",
        ),
        (
            "llava",
            [],
            "whose Tea?\nReference OCR token: \nAnswer the question using a single word or phrase.",
        ),
        ("qwen_vl", None, "Whose tea? Answer:"),
    ],
)
def test_prompts_are_those_of_published_numbers(style, tokens, prompt):
    assert prompt_for(style, "whose Tea?", tokens) == prompt


def test_llava_prompts_come_back_as_they_were():
    question, tokens = read_prompt(LLAVA)
    assert (question, tokens) == ("What is it?", ("$2", "TEA"))
    assert prompt_for("llava", question, tokens) == LLAVA
    with pytest.raises(UsageError, match=r"unknown prompt 'llama'\. Did you mean 'llava'"):
        prompt_for("llama", "", None)


def test_original_files(original):
    found = load_json(original, original.parent).questions
    assert [question.question_id for question in found] == ["1", "2", "3"]
    assert found[0].answers == ("tea",) * 10
    assert found[1].answers == ()  # of the test split: ten empty strings
    assert found[2].ocr_tokens == ("$2", "TEA")
    assert found[0].open_image().size == (8, 8)
    (original.parent / "train_images" / "b.jpg").unlink()
    with pytest.raises(CheckpointError, match=r"1 of the 2 pictures .* such as b\.jpg"):
        load_json(original, original.parent)


def test_a_picture_that_is_none_is_named(original):
    (original.parent / "train_images" / "a.jpg").write_bytes(b"no picture")
    question = load_json(original, original.parent).questions[0]
    with pytest.raises(CheckpointError, match=r"a\.jpg cannot be read"):
        question.open_image()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no file of TextVQA questions"),
        ('{"data": 3}', "no file of TextVQA questions"),
        ('{"data": [{"image_id": "a"}]}', "record 0 is not of TextVQA's form"),
        ('{"data": []}', "has no questions"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises((CheckpointError, UsageError), match=message):
        load_json(path, tmp_path)


def test_llava_questions_have_tokens_and_no_answers(tmp_path):
    lines = [{"question_id": "a", "image": "a.jpg", "text": text} for text in (LLAVA, "Why?")]
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    first, second = load_jsonl(path, None).questions
    assert (first.question_id, second.question_id) == ("a#1", "a#2")  # LLaVA's are the pictures'
    assert (first.text, first.ocr_tokens, first.answers) == ("What is it?", ("$2", "TEA"), ())
    assert second.ocr_tokens is None
    assert first.open_image is None
    with pytest.raises(CheckpointError, match=r"1 of the 1 pictures .* --images"):
        load_jsonl(path, tmp_path)
    path.write_text('{"question_id": "a"}\n')
    with pytest.raises(CheckpointError, match="line 1 is not of LLaVA's form"):
        load_jsonl(path, None)


def test_hub_data_sets_and_their_absence(tmp_path, monkeypatch):
    """The library itself on a local folder; the hub's refusals are its exceptions."""
    datasets = pytest.importorskip("datasets")
    image = Image.new("RGB", (8, 8), "blue")
    rows = [{**RECORDS[0], "image": image, "ocr_tokens": ["TEA"]}] * 2
    folder = tmp_path / "data"
    folder.mkdir()
    datasets.Dataset.from_list(rows).to_parquet(folder / "validation-00000-of-00001.parquet")
    found = load_hub(["/nowhere/at/all", str(tmp_path)], "validation").questions
    assert [question.question_id for question in found] == ["1#1", "1#2"]
    assert found[0].ocr_tokens == ("TEA",)
    assert found[0].open_image().size == (8, 8)
    with pytest.raises(CheckpointError, match=r"no questions could be loaded .*--split test"):
        load_hub([str(tmp_path)], "test")

    def gated(name, split):
        raise datasets.exceptions.DatasetNotFoundError(f"Dataset '{name}' is a gated dataset")

    monkeypatch.setattr(datasets, "load_dataset", gated)
    with pytest.raises(CheckpointError, match=r"one/x: gated, accept its conditions.*two/y: gated"):
        load_hub(["one/x", "two/y"], "validation")


def test_a_hub_data_set_with_other_columns_is_refused(monkeypatch):
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_list([{"text": "no question"}])
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: rows)
    with pytest.raises(CheckpointError, match="lacks the columns image, image_id"):
        load_hub(["one/x"], "validation")
