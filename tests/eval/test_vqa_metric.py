"""TextVQA's metric: golden pairs, its laws, and the same numbers as lmms-eval's own class."""

import importlib.util
import random
import statistics
import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.text.vqa_metric import accuracy, normalise

N_PAIRS = 1000
LMMS_FILE = "tasks/_task_utils/vqa_eval_metric.py"
MARKS = ";/[]\"{}()=+\\_-><@`,?!'."
WORDS = (
    "stop", "The", "a", "an", "none", "Seven", "dont", "couldntve", "couldn'tve", "o'clock", "twas",
    "'ows'at", "somebody'd", "somebodyd've", "y'allll", "yall'd've", "Im", "Id've", "she's", "hes",
    "St.", "John's", "3.5", "1,000", "$5.99", "12/05/2010", "10:30", "a.m.", "e-mail:", "a@b.com",
    "coca", "cola,", "Inc.", "\n", "\t", "...", "unanswerable", "İstanbul", "ß", "٣.٤", "no.7",
)  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("The Dakota-Digital", "dakota digital"),
        ("$5.99", "$5.99"),
        ("1,000", "1000"),
        ("Two dogs.", "2 dogs"),
        ("dont", "don't"),
        ("it's 10:30 a.m.", "it 's 10:30 am"),
        ("Coca Cola, Inc.", "coca cola inc"),
        ("none", "0"),
        ("A", ""),
        ("St. John's", "st john 's"),
        ("12/05/2010", "12 05 2010"),
        ("e-mail: a@b.com", "e mail: bcom"),
        ("yes!", "yes"),
        ("3.5", "3.5"),
        ("." * 40, "." * 8),
    ],
)
def test_golden_pairs(answer, normal):
    assert normalise(answer) == normal


@pytest.mark.parametrize(("n", "score"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_each_annotator_is_left_out_once(n, score):
    assert accuracy("Stop!", ["stop"] * n + ["go"] * (10 - n)) == pytest.approx(score)


@settings(deadline=None)
@given(st.text(), st.lists(st.text(), min_size=1, max_size=10), st.randoms())
def test_accuracy_is_a_share_that_no_order_changes(prediction, answers, rng):
    score = accuracy(prediction, answers)
    assert 0 <= score <= 1
    shuffled = rng.sample(answers, len(answers))
    assert accuracy(prediction, shuffled) == pytest.approx(score)


@settings(deadline=None)
@given(st.text(), st.lists(st.text(), min_size=1, max_size=9))
def test_one_more_who_agrees_never_costs(prediction, answers):
    fewer = accuracy(prediction, [*answers, "~ another ~"])
    assert accuracy(prediction, [*answers, prediction]) >= fewer - 1e-12


def made_up(rng: random.Random) -> str:
    """Words and marks as answers have them, and stranger ones."""
    words = []
    for _ in range(rng.randint(0, 6)):
        word = rng.choice(WORDS) if rng.random() < 0.7 else rng.choice(string.ascii_letters) * 3
        if rng.random() < 0.4:
            k = rng.randint(0, len(word))
            word = word[:k] + rng.choice(MARKS) + word[k:]
        words.append(word)
    return rng.choice(("", " ")) + rng.choice((" ", "  ")).join(words)


@pytest.fixture(scope="module")
def lmms():
    """lmms-eval's class; its one file, as its package imports what is not needed here."""
    spec = importlib.util.find_spec("lmms_eval")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("lmms-eval is not installed: pip install --no-deps lmms-eval==0.7.3")
    path = Path(spec.submodule_search_locations[0], LMMS_FILE)
    spec = importlib.util.spec_from_file_location("lmms_metric", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.EvalAIAnswerProcessor()


def lmms_accuracy(processor, prediction, answers):
    """As lmms-eval's textvqa_process_results counts."""
    wanted, normal = processor(prediction), [processor(answer) for answer in answers]
    scores = []
    for i in range(len(normal)):
        others = normal[:i] + normal[i + 1 :]
        scores.append(min(1, others.count(wanted) / 3))
    return statistics.mean(scores)


def test_a_thousand_pairs_score_as_in_lmms_eval(lmms):
    rng = random.Random(0)
    n_partly = 0
    for _ in range(N_PAIRS):
        answers = [made_up(rng) for _ in range(10)]
        prediction = rng.choice([*answers, made_up(rng)])
        n_equal = rng.randint(0, 9)
        answers[:n_equal] = [rng.choice((prediction, prediction.upper()))] * n_equal
        assert normalise(prediction) == lmms(prediction), repr(prediction)
        score = accuracy(prediction, answers)
        assert score == pytest.approx(lmms_accuracy(lmms, prediction, answers), abs=1e-12)
        n_partly += 0 < score < 1
    assert n_partly > N_PAIRS / 10


@settings(deadline=None)
@given(st.text(alphabet=MARKS + " \n\t'" + "abts019٣", max_size=40))
def test_any_text_is_normalised_as_in_lmms_eval(lmms, text):
    assert normalise(text) == lmms(text)


def test_every_contraction_is_the_same_as_in_lmms_eval(lmms):
    for word in lmms.CONTRACTIONS:
        for text in (word, word.lower(), f"Well, {word}"):
            assert normalise(text) == lmms(text), text
