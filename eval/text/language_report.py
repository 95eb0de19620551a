"""From the scores of windows and the answers to questions to the report of a language run."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from einsort_vla.results import ArmFacts, Run
from einsort_vla.results.measures import Estimate, Measure
from einsort_vla.results.report import Report
from einsort_vla.results.statistics import PairCounts, tango
from eval.run.arms import DENSE
from eval.text.harness import Answer
from eval.text.perplexity import WindowScore, perplexity, perplexity_ratio
from eval.text.report import share, text_report

KIND = "language"
OVER_WINDOWS = "Bootstrap over windows, percentiles."
OVER_QUESTIONS = "Wilson's interval of each arm, Tango's of the paired difference."
SMALL = (
    "einsort_facts and einsort_word_problems were made for this project and are far easier than "
    "published tests: they show what compression costs, not how good the model is."
)

FAMOUS = (
    "The default text is a famous novel, which every model was trained on: its perplexity compares "
    "models with each other and is no measure of any."
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
    measures = [] if not windows else [_perplexity(names, windows)]
    scores = dict.fromkeys((answer.task, answer.score) for answer in answers)
    measures += [_accuracy(names, task, score, answers) for task, score in scores]
    return text_report(KIND, arms, measures, is_complete, protocol, notes, run)


def _perplexity(arms: Sequence[str], windows: Sequence[WindowScore]) -> Measure:
    by_arm: dict[str, list[WindowScore]] = {arm: [] for arm in arms}
    for score in sorted(windows, key=lambda score: score.window):
        by_arm[score.arm].append(score)
    dense = {score.window: score for score in by_arm[DENSE]}
    paired = {}
    for arm in arms[1:]:
        both = [score for score in by_arm[arm] if score.window in dense]
        if both:
            paired[arm] = perplexity_ratio(both, [dense[score.window] for score in both])
    return Measure(
        name="perplexity",
        better="lower",
        counted="tokens",
        arms={arm: perplexity(scores) for arm, scores in by_arm.items() if scores},
        paired=paired,
        paired_as="ratio",
        interval=OVER_WINDOWS,
    )


def _accuracy(arms: Sequence[str], task: str, score: str, answers: Sequence[Answer]) -> Measure:
    right: dict[str, dict[int, bool]] = {arm: {} for arm in arms}
    for answer in answers:
        if (answer.task, answer.score) == (task, score):
            right[answer.arm][answer.question] = answer.is_right
    pairs = {arm: _count_pairs(right[arm], right[DENSE]) for arm in arms[1:]}
    return Measure(
        name=f"{task} {score}",
        better="higher",
        counted="questions",
        arms={arm: share(sum(own.values()), len(own)) for arm, own in right.items() if own},
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
