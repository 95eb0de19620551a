"""From what models made of a text or answered to report.json: estimates, paired with the dense."""

from collections import Counter
from collections.abc import Mapping, Sequence
from operator import eq
from typing import Any

import numpy as np
from msgspec.structs import replace

from einsort_vla.results.arms import ArmFacts
from einsort_vla.results.measures import Estimate, Measure
from einsort_vla.results.report import Report
from einsort_vla.results.run import Run
from einsort_vla.results.statistics import (
    N_RESAMPLES,
    Interval,
    PairCounts,
    bootstrap_interval,
    tango,
    wilson,
)
from einsort_vla.results.verdict import state
from eval.run.arms import DENSE
from eval.text.harness import Answer
from eval.text.perplexity import WindowScore, perplexity, perplexity_ratio
from eval.text.vqa_data import VqaQuestion
from eval.text.vqa_metric import accuracy, normalise

LANGUAGE, TEXTVQA = "language", "textvqa"  # the kinds of run
ROUNDED = (
    "SmolLM2-135M-Instruct comes rounded to 4 bits in groups of 32 weights. Codes with such groups "
    "give its weights back without error, which says nothing about them; `curve` has one scale a "
    "row and no groups."
)
NO_PERPLEXITY = (
    "{arm} has no perplexity: what it says of the text is NaN, or too improbable for a number."
)
OVER_WINDOWS = "Bootstrap over windows, percentiles."
OVER_QUESTIONS = "Wilson's interval of each arm, Tango's of the paired difference."
SMALL = (
    "einsort_facts and einsort_word_problems were made for this project and are far easier than "
    "published tests: they show what compression costs, not how good the model is."
)

FAMOUS = (
    "The default text is a famous novel, which every model was trained on. Its perplexity compares "
    "models with each other; it does not say how good one is."
)
AnswersByArm = Mapping[str, Mapping[str, str]]  # arm to question to answer
BOOTSTRAP = (
    f"Bootstrap over questions, percentiles of {N_RESAMPLES} resamples; where all scores are "
    "alike, Clopper and Pearson's bound on how many of all questions differ."
)
ONLY_AGREEMENT = (
    "There are no answers of people, so nothing is said of how good the models are. The numbers "
    "say how often a compressed model answers as the dense one does, after normalisation."
)


def language_report(
    arms: Sequence[ArmFacts],
    windows: Sequence[WindowScore],
    answers: Sequence[Answer],
    is_complete: bool,
    protocol: Mapping[str, Any],
    notes: Sequence[str],
    run: Run,
) -> Report:
    """The report of a run; arms without a window or an answer are left out of that measure.

    Args:
        arms: the dense one first.
        windows: scores of all arms.
        answers: of all arms, in any order.
        is_complete: whether every window and every question of every arm is there.
        protocol, notes, run: as in `Report`.
    """
    names = [arm.name for arm in arms]
    by_arm = _by_arm(names, windows)
    of_text = _perplexity(by_arm)
    unmeasured = [arm for arm, own in by_arm.items() if own and arm not in of_text.arms]
    notes = [*notes, *(NO_PERPLEXITY.format(arm=arm) for arm in unmeasured)]
    measures = [of_text] if of_text.arms else []
    scores = dict.fromkeys((answer.task, answer.score) for answer in answers)
    measures += [_task_accuracy(names, task, score, answers) for task, score in scores]
    return _text_report(LANGUAGE, arms, measures, is_complete, protocol, notes, run)


def _by_arm(arms: Sequence[str], windows: Sequence[WindowScore]) -> dict[str, list[WindowScore]]:
    """In the order of the text."""
    in_order = sorted(windows, key=lambda score: score.window)
    return {arm: [score for score in in_order if score.arm == arm] for arm in arms}


def _perplexity(by_arm: Mapping[str, Sequence[WindowScore]]) -> Measure:
    dense = {score.window: score for score in by_arm[DENSE]}
    both = {
        arm: [score for score in scores if score.window in dense]
        for arm, scores in by_arm.items()
        if arm != DENSE
    }
    paired = {
        arm: perplexity_ratio(scores, [dense[score.window] for score in scores])
        for arm, scores in both.items()
        if scores
    }
    found = {arm: perplexity(scores) for arm, scores in by_arm.items() if scores}
    return Measure(
        name="perplexity",
        better="lower",
        counted="tokens",
        arms={arm: each for arm, each in found.items() if each},
        paired={arm: each for arm, each in paired.items() if each},
        paired_as="ratio",
        interval=OVER_WINDOWS,
    )


def _task_accuracy(
    arms: Sequence[str], task: str, score: str, answers: Sequence[Answer]
) -> Measure:
    right: dict[str, dict[int, bool]] = {arm: {} for arm in arms}
    for answer in answers:
        if (answer.task, answer.score) == (task, score) and answer.arm in right:
            right[answer.arm][answer.question] = answer.is_right
    pairs = {arm: _count_pairs(right[arm], right[DENSE]) for arm in arms[1:]}
    return Measure(
        name=f"{task} {score}",
        better="higher",
        counted="questions",
        arms={arm: _share(sum(own.values()), len(own)) for arm, own in right.items() if own},
        paired={arm: _difference(counts) for arm, counts in pairs.items() if counts.n},
        paired_as="difference",
        interval=OVER_QUESTIONS,
        unit="%",
    )


def _count_pairs(arm: Mapping[int, bool], reference: Mapping[int, bool]) -> PairCounts:
    """How often both were right, over the questions that both have answered."""
    pairs = Counter((reference[k], arm[k]) for k in arm if k in reference)
    return PairCounts(
        both=pairs[True, True],
        only_reference=pairs[True, False],
        only_arm=pairs[False, True],
        neither=pairs[False, False],
    )


def _difference(counts: PairCounts) -> Estimate:
    difference, interval = counts.difference, tango(counts)
    assert difference is not None
    return Estimate(difference, *(interval or (None, None)), counts.n)


def textvqa_report(
    arms: Sequence[ArmFacts],
    questions: Sequence[VqaQuestion],
    answers: AnswersByArm,
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
    return _text_report(TEXTVQA, arms, measures, is_complete, protocol, notes, run)


def mean_interval(values: np.ndarray, seed: int, limits: Interval) -> Estimate:
    """Mean of (n,) values in `limits` with its bootstrap interval; of fewer than two, without."""
    mean = float(values.mean()) if len(values) else 0.0
    return Estimate.of(mean, bootstrap_interval((values,), seed=seed, limits=limits), len(values))


def _accuracy(
    arms: Sequence[str], questions: Sequence[VqaQuestion], answers: AnswersByArm, seed: int
) -> Measure:
    scores = {
        arm: np.array([accuracy(answers[arm][q.question_id], q.answers) for q in questions])
        for arm in arms
    }
    return Measure(
        name="accuracy",
        better="higher",
        counted="questions",
        arms={arm: mean_interval(found, seed, (0, 1)) for arm, found in scores.items()},
        paired={
            arm: mean_interval(scores[arm] - scores[DENSE], seed, (-1, 1))
            for arm in arms
            if arm != DENSE
        },
        paired_as="difference",
        interval=BOOTSTRAP,
        unit="%",
    )


def _agreement(
    compressed: Sequence[str], questions: Sequence[VqaQuestion], answers: AnswersByArm
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
        arms={arm: _share(k, len(questions)) for arm, k in equal.items()},
        paired={},
        paired_as="difference",
        interval="Wilson's interval.",
        unit="%",
    )


def _text_report(
    kind: str, arms: Sequence[ArmFacts], measures: Sequence[Measure], is_complete: bool,
    protocol: Mapping[str, Any], notes: Sequence[str], run: Run,
) -> Report:  # fmt: skip
    """The report of these measures, with its verdict."""
    report = Report(
        kind=kind, verdict="", complete=is_complete, arms=tuple(arms), measures=tuple(measures),
        protocol=protocol, run=run, notes=tuple(notes),
    )  # fmt: skip
    return replace(report, verdict=state(report))


def _share(k: int, n: int) -> Estimate:
    """k of n, with its Wilson interval; of none, 0 without."""
    return Estimate(k / n if n else 0.0, *(wilson(k, n) or (None, None)), n)
