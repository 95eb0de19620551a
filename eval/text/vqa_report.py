"""From answers to report.json: accuracy, agreement with the dense model, paired intervals."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import bootstrap

from einsort_vla.results.measures import Estimate, Findings, Measure
from einsort_vla.results.statistics import N_RESAMPLES
from eval.run.arms import DENSE
from eval.text.language_report import share
from eval.text.vqa_data import VqaQuestion
from eval.text.vqa_metric import accuracy, normalise

Answers = Mapping[str, Mapping[str, str]]  # arm to question to answer
BOOTSTRAP = f"percentile bootstrap over questions, {N_RESAMPLES} resamples"
ONLY_AGREEMENT = (
    "There are no answers of people, so nothing is said of how good the models are: only how often "
    "the compressed one answers as the dense one does, after normalisation."
)


def textvqa_findings(
    arms: Mapping[str, Mapping[str, Any]],
    questions: Sequence[VqaQuestion],
    answers: Answers,
    has_answers: bool,
    seed: int,
) -> Findings:
    """The report, but for its protocol, notes and provenance.

    Args:
        arms: what is said of each, the dense one first.
        questions: that were asked; those that not all arms have answered are left out.
        answers: of every arm.
        has_answers: whether the questions have the answers of people.
        seed: of the bootstrap.
    """
    complete = [q for q in questions if all(q.question_id in answers[arm] for arm in arms)]
    compressed = [arm for arm in arms if arm != DENSE]
    measures = []
    if has_answers:
        measures.append(_accuracy(list(arms), complete, answers, seed))
    if compressed:
        measures.append(_agreement(compressed, complete, answers))
    return Findings(
        kind="textvqa",
        verdict=_verdict(measures, compressed),
        complete=len(complete) == len(questions),
        measures=tuple(measures),
        arms=arms,
        protocol={},
        notes=() if has_answers else (ONLY_AGREEMENT,),
    )


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
    def of(arm: str) -> Callable[[VqaQuestion], str]:
        return lambda question: normalise(answers[arm][question.question_id])

    equal = {arm: sum(of(arm)(q) == of(DENSE)(q) for q in questions) for arm in compressed}
    return Measure(
        name="same answer as dense",
        better="higher",
        counted="questions",
        arms={arm: share(k, len(questions)) for arm, k in equal.items()},
        paired={},
        paired_as="difference",
        interval="Wilson",
        unit="%",
    )


def _verdict(measures: Sequence[Measure], compressed: Sequence[str]) -> str:
    """One sentence with the numbers."""
    parts = []
    for measure in measures:
        told = ", ".join(f"{arm} {_percent(e)}" for arm, e in measure.arms.items())
        parts.append(f"{measure.name}: {told}")
        if measure.paired:
            differences = ", ".join(f"{arm} {_points(measure.paired[arm])}" for arm in compressed)
            parts.append(f"against dense: {differences}")
    n = max((e.n for m in measures for e in m.arms.values()), default=0)
    return f"{n} questions; {'; '.join(parts)}."


def _percent(estimate: Estimate) -> str:
    text = f"{100 * estimate.value:.1f} %"
    if estimate.low is None or estimate.high is None:
        return text
    return f"{text} ({100 * estimate.low:.1f} to {100 * estimate.high:.1f})"


def _points(estimate: Estimate) -> str:
    text = f"{100 * estimate.value:+.1f} points"
    if estimate.low is None or estimate.high is None:
        return text
    return f"{text} ({100 * estimate.low:+.1f} to {100 * estimate.high:+.1f})"
