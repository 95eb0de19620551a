"""Questions in all the forms they come in; prompts; what is missing is named."""

import json

import numpy as np
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


# Two records, of which the second has what is put in.
QUESTIONS = """{"data": [{"image_id": "b", "question_id": 1, "question": "?", "set": "val"},
                          {"image_id": "c/../a", "question_id": "2", "question": "?", %s}]}"""
_WAYS = Image.Transpose
TURNS = {  # what a camera's sensor sees of an upright scene, by the EXIF number that says so
    2: _WAYS.FLIP_LEFT_RIGHT, 3: _WAYS.ROTATE_180, 4: _WAYS.FLIP_TOP_BOTTOM, 5: _WAYS.TRANSPOSE,
    6: _WAYS.ROTATE_90, 7: _WAYS.TRANSVERSE, 8: _WAYS.ROTATE_270,
}  # fmt: skip


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


def spoil(kind, path):
    """A picture of each kind that cannot be had."""
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    if kind == "cut":
        Image.fromarray(noise).save(path, "JPEG")
        path.write_bytes(path.read_bytes()[:700])
    elif kind == "huge":  # a few kilobytes that would be a gigabyte
        Image.new("1", (20_000, 20_000)).save(path, "PNG")
    elif kind == "large":  # where Pillow only warns
        Image.new("1", (10_000, 10_000)).save(path, "PNG")
    elif kind == "postscript":
        Image.fromarray(noise).save(path, "EPS")
    elif kind == "folder":
        path.mkdir()
    else:
        content = {"empty": b"", "text": b"no picture", "header": b"\x89PNG\r\n\x1a\n"}
        path.write_bytes(content[kind])


@pytest.mark.parametrize(
    "kind", ["cut", "huge", "large", "postscript", "folder", "empty", "text", "header"]
)
def test_a_picture_that_cannot_be_read_is_named(original, kind):
    path = original.parent / "train_images" / "a.jpg"
    path.unlink()
    spoil(kind, path)
    question = load_json(original, original.parent).questions[0]
    said = r"a\.jpg (cannot be read: .*|is a folder, not a file)\.$"
    with pytest.raises(CheckpointError, match=said):
        question.open_image()


@pytest.mark.parametrize("turned", range(1, 9))
def test_pictures_are_turned_as_their_camera_says(original, turned):
    """However a camera lay, the eight ways of saying it show one scene."""
    fields = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    scene = Image.fromarray(np.kron(fields, np.ones((8, 8), np.uint8)))
    exif, back = Image.Exif(), TURNS.get(turned)
    exif[0x0112] = turned
    (scene if back is None else scene.transpose(back)).save(
        original.parent / "train_images" / "a.jpg", "PNG", exif=exif
    )
    shown = load_json(original, original.parent).questions[0].open_image()
    assert (shown.mode, shown.size) == ("RGB", (24, 16))
    assert np.array_equal(np.asarray(shown)[..., 0], np.asarray(scene))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "other.json is damaged: Input data was truncated"),
        ('{"data": 3}', r"Expected `array`, got `int` - at `\$.data`. A record of TextVQA has"),
        ('[{"image_id": "a"}]', "Expected `object`, got `array`"),
        ('{"data": [{"image_id": "a"}]}', r"field `question_id` - at `\$.data\[0\]`"),
        (QUESTIONS % '"answers": [["tea"]]', r"got `array` - at `\$.data\[1\].answers\[0\]`"),
        (QUESTIONS % '"ocr_tokens": ["x", null]', r"at `\$.data\[1\].ocr_tokens\[1\]`"),
        (
            QUESTIONS % '"answers": null',
            "2 of the 2 pictures .* such as b.jpg",
        ),
        ("\xe9", "other.json is not UTF-8"),
        ('{"data": []}', "has no questions"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "other.json"
    path.write_bytes(content.encode("latin-1"))
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
    with pytest.raises(CheckpointError, match=r"line 1, is damaged: .* `image`. A line of LLaVA"):
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


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        ({"bytes": POSTSCRIPT, "path": None}, "cannot identify"),  # Pillow would start a program
        ({"bytes": b"none", "path": None}, "cannot identify"),
        ({"bytes": None, "path": "/etc/passwd"}, "neither in the data set nor beside it"),
        ({"bytes": None, "path": "http://127.0.0.1:9/x.png"}, "neither in the data set"),
    ],
)
def test_a_picture_of_a_data_set_is_opened_as_one_of_ours(picture, message, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    kinds = {name: datasets.Value("string") for name in ("question_id", "image_id", "question")}
    rows = datasets.Dataset.from_dict(
        {**{name: ["1"] for name in kinds}, "image": [picture]},
        datasets.Features({**kinds, "image": datasets.Image()}),
    )
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: rows)
    [question] = load_hub([str(tmp_path)], "validation").questions
    with pytest.raises(CheckpointError, match=message):
        question.open_image()
