"""`eval/textvqa.py` end to end on tiny models, stopped and resumed; misuse is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

pytest.importorskip("transformers")

from einsort_vla.checkpoint import read_folder
from einsort_vla.codec import Dense
from einsort_vla.errors import CheckpointError, EinSortError, UsageError
from einsort_vla.results.report import read_report
from eval.text.settings import TextVqaSettings
from eval.text.vqa_command import main
from eval.text.vqa_data import QuestionSet, VqaQuestion
from eval.text.vqa_request import choose_ocr
from eval.text.vqa_run import ANSWERS
from tests.eval.tiny_answering import image_text_model, language_model

ROOT = Path(__file__).parents[2]
ARMS = ("dense", "curve 0.5")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return language_model(tmp_path_factory.mktemp("language"))


@pytest.fixture(scope="module")
def seeing(tmp_path_factory):
    return image_text_model(tmp_path_factory.mktemp("seeing"))


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """TextVQA's own form: six questions about three pictures."""
    folder = tmp_path_factory.mktemp("original")
    (folder / "train_images").mkdir()
    records = []
    for k, colour in enumerate(("red", "green", "blue")):
        Image.new("RGB", (32, 24), colour).save(folder / "train_images" / f"p{k}.jpg")
        for i, question in enumerate(("what does the sign say?", "what number is on the door?")):
            records.append(
                {"image_id": f"p{k}", "question_id": 2 * k + i, "question": question,
                 "answers": ["stop", "7"] * 5, "ocr_tokens": ["STOP", "GO", "7"][: k + 1]}
            )  # fmt: skip
    (folder / "val.json").write_text(json.dumps({"data": records}))
    return folder


@pytest.fixture
def questions(tmp_path):
    """LLaVA's form: tokens, no pictures, no answers."""
    text = "What does the sign say?\nReference OCR token: STOP\nAnswer the question using a single"
    line = {"question_id": "a", "image": "a.jpg", "text": f"{text} word or phrase."}
    path = tmp_path / "questions.jsonl"
    path.write_text(f"{json.dumps(line)}\n" * 3)
    return path


def run(output, model, data, **settings):
    made = TextVqaSettings(
        rate="0.5", model=str(model), data=str(data), output=output, max_new_tokens=4, batch=2,
        **settings,
    )  # fmt: skip
    return main(made, Console(quiet=True))


def answers(output):
    return [json.loads(line) for line in (output / ANSWERS).read_text().splitlines()]


def test_a_language_model_is_given_the_tokens(tmp_path, model, original):
    output = tmp_path / "run"
    assert run(output, model, original / "val.json", images=original) == 0
    found = read_report(output)
    assert found.kind == "textvqa"
    assert found.complete
    assert tuple(arm.name for arm in found.arms) == ARMS
    assert {measure.name: measure.arms[ARMS[1]].n for measure in found.measures} == {
        "accuracy": 6, "same answer as dense": 6,
    }  # fmt: skip
    assert found.arms[1].rate_achieved >= 0.5
    assert found.protocol["prompt"] == "lmms"
    assert found.protocol["ocr_tokens"] == "of the data set"
    lines = answers(output)
    assert len(lines) == 12
    prompts = "".join(line["prompt"] for line in lines)
    assert "What does the sign say?\nReference OCR token: STOP, GO\nAnswer" in prompts
    provenance = json.loads((output / "run.json").read_text())
    assert {"model", "questions val.json"} <= provenance["inputs_sha256"].keys()


def test_a_model_that_sees_is_shown_pictures(tmp_path, seeing, original):
    output = tmp_path / "run"
    assert run(output, seeing, original / "val.json", images=original, calibrate=None) == 0
    found = read_report(output)
    assert found.protocol["ocr_tokens"] == "none"
    assert all("OCR" not in line["prompt"] for line in answers(output))
    with pytest.raises(UsageError, match="--images, the folder of its pictures"):
        run(tmp_path / "none", seeing, original / "val.json")


def test_the_language_part_can_be_compressed_alone(tmp_path, seeing, original):
    """As in the EinSort paper; the rate counts the tower, so that the other weights have fewer."""
    output = tmp_path / "run"
    run(output, seeing, original / "val.json", images=original, include="*text_model*,*connector*",
        exclude="*connector*")  # fmt: skip
    plan = read_folder(output / "models" / "curve-0.5").plan
    is_dense = {name: isinstance(own.spec, Dense) for name, own in plan.tensors.items()}
    assert is_dense == {name: "text_model" not in name for name in is_dense}
    assert set(is_dense.values()) == {False, True}
    assert plan.rate >= 0.5


@pytest.mark.parametrize("sees", [False, True])
def test_calibrated_on_training_questions(tmp_path, model, seeing, original, sees):
    """The statistics change the code, and are kept for a resumed run."""
    outputs = [tmp_path / "plain", tmp_path / "calibrated"]
    chosen, train = seeing if sees else model, original / "val.json"
    common = {"images": original, "train": train, "shots": 0 if sees else 1}
    run(outputs[0], chosen, original / "val.json", **common)
    run(outputs[1], chosen, original / "val.json", calibrate="4", **common)
    weights = [(o / "models" / "curve-0.5" / "model.safetensors").read_bytes() for o in outputs]
    assert weights[0] != weights[1]
    assert read_report(outputs[1]).protocol["calibration"] == "4 training questions"


def test_a_stopped_run_goes_on_to_the_same_answers(tmp_path, model, original):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    run(whole, model, original / "val.json", images=original)
    run(stopped, model, original / "val.json", images=original)
    lines = (stopped / ANSWERS).read_text().splitlines(keepends=True)
    (stopped / ANSWERS).write_text("".join(lines[:5]) + lines[5][:20])  # killed while writing
    with pytest.raises(UsageError, match="holds a run already"):
        run(stopped, model, original / "val.json", images=original)
    with pytest.raises(UsageError, match=r"holds another run, with --prompt lmms\."):
        run(stopped, model, original / "val.json", images=original, prompt="llava", resume=True)
    assert run(stopped, model, original / "val.json", images=original, resume=True) == 0
    assert read_report(stopped).measures == read_report(whole).measures
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(UsageError, match="is not empty and holds no run"):
        run(tmp_path / "other", model, original / "val.json", images=original)


def test_questions_without_answers_give_agreement_alone(tmp_path, model, questions):
    output = tmp_path / "run"
    assert run(output, model, questions, prompt="llava") == 0
    found = read_report(output)
    assert [measure.name for measure in found.measures] == ["same answer as dense"]
    assert answers(output)[0]["prompt"] == json.loads(questions.read_text().splitlines()[0])["text"]
    with pytest.raises(UsageError, match=r"3 of the 3 questions of questions\.jsonl have none"):
        run(tmp_path / "none", model, questions, metric="accuracy")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"rate": "0.99"}, UsageError, "0.95"),
        ({"prompt": "blip"}, UsageError, "unknown prompt 'blip'"),
        ({"codec": "zip"}, UsageError, "unknown"),
        ({"include": "*tower*"}, UsageError, "fits no compressible matrix"),
        ({"ocr": "none"}, UsageError, "has no vision input"),
        ({"ocr": "read"}, UsageError, "has no pictures"),
        ({"rate": "0"}, UsageError, "makes no other model"),
        ({"limit": 0}, UsageError, "--limit 0"),
        ({"batch": 0}, UsageError, "--batch"),
        ({"shots": -1}, UsageError, "--shots"),
        ({"calibrate": "8"}, UsageError, "--train FILE"),
        ({"device": "tpu"}, UsageError, "--device tpu cannot be used"),
        ({"data": "absent.json"}, CheckpointError, r"no file absent\.json"),
        ({"model": "absent"}, CheckpointError, "no Transformers model"),
        ({"resume": True}, UsageError, "no run to resume"),
    ],
)
def test_misuse_is_refused_before_anything_is_written(
    tmp_path, model, questions, settings, error, message
):
    output = tmp_path / "run"
    given = {"rate": "0.5", "model": str(model), "data": str(questions), "output": output}
    with pytest.raises(error, match=message):
        main(TextVqaSettings(**{**given, **settings}), Console(quiet=True))
    assert not output.exists()


def test_a_model_that_sees_needs_pictures():
    blind = QuestionSet("questions", (VqaQuestion("1", "1", "?"),))
    with pytest.raises(UsageError, match="no pictures for a model that sees"):
        choose_ocr("auto", True, blind)
    with pytest.raises(UsageError, match="has no OCR tokens"):
        choose_ocr("data", False, blind)
    assert issubclass(UsageError, EinSortError)


@pytest.mark.slow
@pytest.mark.sim
def test_the_default_run_on_a_real_model(tmp_path):
    """Pictures, reader and SmolLM2-135M; far from 0 and from 100 %."""
    command = [sys.executable, "eval/textvqa.py", "--rate", "0.5", "--limit", "24"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    subprocess.run(
        [*command, "--output", str(tmp_path / "run")], cwd=ROOT, env=environment, check=True
    )
    found = read_report(tmp_path / "run")
    assert any("NOT the TextVQA score" in note for note in found.notes)
    accuracy = found.measures[0].arms["dense"]
    assert accuracy.n == 24
    assert 0.05 < accuracy.value < 0.95
