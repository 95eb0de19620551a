"""From answers to report.json: accuracy, agreement with the dense model, paired intervals."""

from collections.abc import Mapping, Sequence
from operator import eq
from typing import Any

import numpy as np
from scipy.stats import bootstrap

from einsort_vla.results import ArmFacts, Run
from einsort_vla.results.measures import Estimate, Measure
from einsort_vla.results.report import Report
from einsort_vla.results.statistics import N_RESAMPLES
from eval.run.arms import DENSE
from eval.text.report import share, text_report
from eval.text.vqa_data import VqaQuestion
from eval.text.vqa_metric import accuracy, normalise

Answers = Mapping[str, Mapping[str, str]]  # arm to question to answer
KIND = "textvqa"
BOOTSTRAP = f"Bootstrap over questions, percentiles of {N_RESAMPLES} resamples."
ONLY_AGREEMENT = (
    "There are no answers of people, so nothing is said of how good the models are. The numbers "
    "say how often a compressed model answers as the dense one does, after normalisation."
)


def textvqa_report(
    arms: Sequence[ArmFacts],
    questions: Sequence[VqaQuestion],
    answers: Answers,
    has_answers: bool,
    seed: int,
    protocol: Mapping[str, Any],
    notes: Sequence[str],
    run: Run,
) -> Report:
    """The report of a run.

    Args:
        arms: the dense one first.
        questions: that were asked; those that not all arms have answered are left out.
        answers: of every arm.
        has_answers: whether the questions have the answers of people.
        seed: of the bootstrap.
        protocol, notes, run: as in `Report`.
    """
    names = [arm.name for arm in arms]
    complete = [q for q in questions if all(q.question_id in answers[name] for name in names)]
    compressed = [name for name in names if name != DENSE]
    measures = []
    if has_answers:
        measures.append(_accuracy(names, complete, answers, seed))
    else:
        notes = (*notes, ONLY_AGREEMENT)
    if compressed:
        measures.append(_agreement(compressed, complete, answers))
    is_complete = len(complete) == len(questions)
    return text_report(KIND, arms, measures, is_complete, protocol, notes, run)


def mean_interval(values: np.ndarray, seed: int) -> Estimate:
    """Mean of (n,) values with its bootstrap interval; of fewer than two, without."""
    mean = float(values.mean()) if len(values) else 0.0
    if len(values) < 2:
        return Estimate(mean, None, None, len(values))
    rng = np.random.default_rng(seed)
    found = bootstrap(
        (values,), np.mean, n_resamples=N_RESAMPLES, method="percentile", batch=200, rng=rng
    ).confidence_interval
    return Estimate(mean, float(found.low), float(found.high), len(values))


def _accuracy(
    arms: Sequence[str], questions: Sequence[VqaQuestion], answers: Answers, seed: int
) -> Measure:
    scores = {
        arm: np.array([accuracy(answers[arm][q.question_id], q.answers) for q in questions])
        for arm in arms
    }
    return Measure(
        name="accuracy",
        better="higher",
        counted="questions",
        arms={arm: mean_interval(found, seed) for arm, found in scores.items()},
        paired={
            arm: mean_interval(scores[arm] - scores[DENSE], seed) for arm in arms if arm != DENSE
        },
        paired_as="difference",
        interval=BOOTSTRAP,
        unit="%",
    )


def _agreement(
    compressed: Sequence[str], questions: Sequence[VqaQuestion], answers: Answers
) -> Measure:
    given = {
        arm: [normalise(answers[arm][q.question_id]) for q in questions]
        for arm in (DENSE, *compressed)
    }
    equal = {arm: sum(map(eq, given[arm], given[DENSE])) for arm in compressed}
    return Measure(
        name="same answer as dense",
        better="higher",
        counted="questions",
        arms={arm: share(k, len(questions)) for arm, k in equal.items()},
        paired={},
        paired_as="difference",
        interval="Wilson's interval.",
        unit="%",
    )
