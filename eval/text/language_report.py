"""From the scores of windows and the answers to questions to the report of a language run."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from einsort_vla.results.measures import Estimate, Findings, Measure
from einsort_vla.results.statistics import PairCounts, tango, wilson
from eval.run.arms import DENSE
from eval.text.harness import Answer
from eval.text.perplexity import WindowScore, perplexity, perplexity_ratio

KIND = "language"
OVER_WINDOWS = "bootstrap over windows, 95 %, percentiles"
OVER_QUESTIONS = "Wilson of each arm, Tango of the paired difference, 95 %"
ROUNDED = (
    "SmolLM2-135M-Instruct comes rounded to 4 bits in groups of 32 weights. Codes with such groups "
    "give its weights back without error, which says nothing about them; `leader` has one scale a "
    "row and no groups."
)
SMALL = (
    "einsort_facts and einsort_word_problems were made for this project and are far easier than "
    "published tests: they show what compression costs, not how good the model is."
)

FAMOUS = (
    "The default text is a famous novel, which every model was trained on: its perplexity compares "
    "models with each other and is no measure of any."
)


def language_findings(
    arms: Mapping[str, Mapping[str, Any]],
    windows: Sequence[WindowScore],
    answers: Sequence[Answer],
    is_complete: bool,
    protocol: Mapping[str, Any],
    notes: Sequence[str],
    provenance: Mapping[str, Any],
) -> Findings:
    """The report of a run; arms without a window or an answer are left out of that measure.

    Args:
        arms: what is said of each, the dense one first.
        windows: scores of all arms.
        answers: of all arms, in any order.
        is_complete: whether every window and every question of every arm is there.
        protocol: all that decides the numbers.
        notes: what a reader must know.
        provenance: versions, machine, commit.
    """
    measures = [] if not windows else [_perplexity(list(arms), windows)]
    scores = dict.fromkeys((answer.task, answer.score) for answer in answers)
    measures += [_accuracy(list(arms), task, score, answers) for task, score in scores]
    return Findings(
        kind=KIND,
        verdict=_verdict(measures),
        complete=is_complete,
        measures=tuple(measures),
        arms=arms,
        protocol=protocol,
        notes=tuple(notes),
        provenance=provenance,
    )


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
    pairs = {arm: count_pairs(right[arm], right[DENSE]) for arm in arms[1:]}
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


def count_pairs(arm: Mapping[int, bool], reference: Mapping[int, bool]) -> PairCounts:
    """How often both were right, over the questions that both have answered."""
    pairs = Counter((reference[k], arm[k]) for k in arm if k in reference)
    return PairCounts(
        both=pairs[True, True],
        only_reference=pairs[True, False],
        only_arm=pairs[False, True],
        neither=pairs[False, False],
    )


def share(k: int, n: int) -> Estimate:
    """k of n, with its Wilson interval; of none, 0 without."""
    return Estimate(k / n if n else 0.0, *(wilson(k, n) or (None, None)), n)


def _difference(counts: PairCounts) -> Estimate:
    difference, interval = counts.difference, tango(counts)
    assert difference is not None
    return Estimate(difference, *(interval or (None, None)), counts.n)


def _verdict(measures: Sequence[Measure]) -> str:
    """One sentence for each measure: all arms against the dense one."""
    return " ".join(f"{_title(measure)}: {_comparison(measure)}." for measure in measures)


def _title(measure: Measure) -> str:
    n = max((estimate.n for estimate in measure.arms.values()), default=0)
    return f"{measure.name}, {n} {measure.counted}"


def _comparison(measure: Measure) -> str:
    parts = [f"{arm} {_number(measure, estimate)}" for arm, estimate in measure.arms.items()]
    for k, arm in enumerate(measure.arms):
        if arm in measure.paired:
            parts[k] += f" ({measure.paired_as} {_paired(measure, measure.paired[arm])})"
    return ", ".join(parts)


def _number(measure: Measure, estimate: Estimate) -> str:
    percent = measure.unit == "%"
    return f"{100 * estimate.value:.1f} %" if percent else f"{estimate.value:.3f}"


def _paired(measure: Measure, estimate: Estimate) -> str:
    numbers = (estimate.value, estimate.low, estimate.high)
    if measure.paired_as == "ratio":
        value, low, high = ("?" if x is None else f"{x:.4f}" for x in numbers)
        return f"{value} [{low}, {high}]"
    value, low, high = ("?" if x is None else f"{100 * x:+.1f}" for x in numbers)
    return f"{value} points [{low}, {high}]"


def print_findings(findings: Findings, console: Console) -> None:
    """A table with a row for each number of each arm, then the notes."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("measure", "arm", "value", "95 %", "against dense, 95 %", "n"):
        table.add_column(heading, justify="left" if heading in ("measure", "arm") else "right")
    for measure in findings.measures:
        for arm, estimate in measure.arms.items():
            paired = measure.paired.get(arm)
            table.add_row(
                measure.name,
                arm,
                _number(measure, estimate),
                _range(measure, estimate),
                f"{measure.paired_as} {_paired(measure, paired)}" if paired else "",
                f"{estimate.n} {measure.counted}",
            )
    sentences = list(findings.notes)
    if not findings.complete:
        sentences.append("INCOMPLETE: the same command with --resume runs what is missing.")
    for part in (table, *sentences):
        console.print(part, highlight=False, markup=False)


def _range(measure: Measure, estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    scale, digits = (100, 0) if measure.unit == "%" else (1, 2)
    return f"{scale * estimate.low:.{digits}f} to {scale * estimate.high:.{digits}f}"
