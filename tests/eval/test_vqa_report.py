"""From answers to accuracy, agreement, and paired intervals."""

import numpy as np
import pytest

from einsort_vla.results.arms import ArmFacts
from einsort_vla.results.report import read_report, write_report
from eval.text.report import mean_interval, textvqa_report
from eval.text.vqa_data import VqaQuestion
from tests.results.made_up_texts import make_text_run

ARMS = (
    ArmFacts(name="dense"),
    ArmFacts(name="curve 0.5", codec="curve", rate_requested=0.5, reference="dense"),
)
MINUS = "\N{MINUS SIGN}"
QUESTIONS = [VqaQuestion(str(k), str(k), "?", ("tea",) * 10) for k in range(40)]


def findings(dense, compressed, has_answers=True, questions=QUESTIONS):
    answers = {
        "dense": {q.question_id: dense(k) for k, q in enumerate(questions)},
        "curve 0.5": {q.question_id: compressed(k) for k, q in enumerate(questions)},
    }
    return report_of(questions, answers, has_answers)


def report_of(questions, answers, has_answers=True):
    run = make_text_run("textvqa")
    return textvqa_report(ARMS, questions, answers, has_answers, 0, {}, (), run)


def test_accuracy_agreement_and_difference(tmp_path):
    """Dense is right on 30 of 40, compressed on 20 of these; where both are wrong they differ."""
    found = findings(
        lambda k: "The Tea." if k < 30 else "milk", lambda k: "tea" if k < 20 else f"no {k}"
    )
    accuracy, agreement = found.measures
    assert accuracy.arms["dense"].value == pytest.approx(0.75)
    assert accuracy.arms["curve 0.5"].value == pytest.approx(0.5)
    paired = accuracy.paired["curve 0.5"]
    assert paired.value == pytest.approx(-0.25)
    assert paired.low < -0.25 < paired.high < 0
    assert agreement.arms["curve 0.5"].value == pytest.approx(0.5)
    assert agreement.arms["curve 0.5"].n == 40
    assert "dense" not in agreement.arms
    assert found.complete
    assert found.verdict == (
        "Accuracy (40 questions; higher is better): dense 75.0 %, curve 0.5 50.0 % "
        f"({MINUS}25.0 points, 95 % interval {MINUS}40.0 to {MINUS}12.5). Same answer as "
        "dense (40 questions; higher is better): curve 0.5 50.0 %."
    )
    write_report(found, tmp_path)
    assert read_report(tmp_path) == found


def test_without_answers_of_people_only_agreement_is_reported():
    bare = [VqaQuestion(str(k), str(k), "?") for k in range(10)]
    found = findings(lambda k: "a tea", lambda k: "Tea!", has_answers=False, questions=bare)
    (agreement,) = found.measures
    assert agreement.arms["curve 0.5"].value == 1
    assert agreement.arms["curve 0.5"].low < 1  # ten equal answers prove no certainty
    assert "nothing is said of how good" in found.notes[0]


def test_what_one_arm_has_not_answered_counts_for_none():
    answers = {"dense": {"0": "tea", "1": "tea"}, "curve 0.5": {"0": "milk"}}
    found = report_of(QUESTIONS[:2], answers)
    assert not found.complete
    assert found.measures[0].arms["dense"].n == 1
    assert found.measures[0].arms["dense"].low is None  # of one question there is no interval


def test_the_bootstrap_covers_as_often_as_it_says():
    """95 of 100 intervals for the mean of coin flips; within three standard errors."""
    rng = np.random.default_rng(0)
    covered = 0
    for k in range(100):
        estimate = mean_interval((rng.random(80) < 0.6).astype(float), seed=k, limits=(0, 1))
        covered += estimate.low <= 0.6 <= estimate.high
    assert 88 <= covered <= 100
