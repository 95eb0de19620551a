"""The result of an evaluation in plain sentences: what is known, then what is open."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from einsort_vla.results import wording
from einsort_vla.results.arms import ArmFacts
from einsort_vla.results.measures import Estimate, Measure
from einsort_vla.results.report import ClosedLoop, PairedEpisodes, Report

SEQUENTIAL = "Arms ended as soon as they were decided; their intervals hold at every look."
EXACT = (
    "The weights at {rates} are the dense ones bit for bit. Such a policy acts as the dense one "
    "does, so the dense episodes count for both and nothing was run twice."
)
SEVERAL = "Each interval is for its arm alone; none was widened because there are several."


@dataclass(frozen=True)
class Member:
    """A compressed arm of a family, and what it shows against its dense arm."""

    facts: ArmFacts
    pair: PairedEpisodes
    change: Estimate | None  # of the success rate; None without a pair

    @property
    def kind(self) -> str:
        """The verdict, but "no pairs" without them, and "worse" where only the size is open."""
        if self.change is None:
            return "no pairs"
        verdict = self.pair.noninferiority.verdict
        is_worse = self.change.high is not None and self.change.high < 0
        return "worse" if verdict == "undecided" and is_worse else verdict


def state(report: Report) -> str:
    """What a run shows and what it does not; of a report that lacks only this."""
    if not report.closed_loop:
        return " ".join(_told(measure) for measure in report.measures)
    families = _families(report, report.closed_loop)
    sentences = [each for name, family in families.items() for each in _compare(name, family)]
    if not families:
        sentences = [_alone(name, arm) for name, arm in report.measures[0].arms.items()]
    if shared := {arm.rate_requested: arm for arm in report.arms if arm.shares_episodes}:
        sentences.append(EXACT.format(rates=_rates(list(shared.values()))))
    if len(report.compressed) > 1:
        sentences.append(SEVERAL)
    if report.run.design and report.run.design.sequential and families:
        sentences.append(SEQUENTIAL)
    if not report.complete:
        sentences.insert(0, "Not all episodes are in yet, so this may change.")
    return " ".join(sentences)


def _told(measure: Measure) -> str:
    """A measure of all arms: "Perplexity (60000 tokens; lower is better): dense 17.2, ..."."""
    n = max((estimate.n for estimate in measure.arms.values()), default=0)
    counted = f"({wording.n_of(n, measure.counted)}; {measure.better} is better)"
    arms = [_arm_told(measure, name, arm) for name, arm in measure.arms.items()]
    return f"{wording.opening(measure.name)} {counted}: {', '.join(arms)}."


def _arm_told(measure: Measure, name: str, arm: Estimate) -> str:
    text = f"{name} {wording.measured(arm.value, measure.unit)}"
    if pair := measure.paired.get(name):
        text += " ({}, 95 % interval {})".format(*wording.change(measure, pair))
    return text


def _alone(name: str, arm: Estimate) -> str:
    if not arm.n:
        return f"No episode of {name} is finished."
    share, interval = wording.estimated(arm, "%")
    return (
        f"{wording.opening(name)} succeeded in {round(arm.n * arm.value)} of "
        f"{wording.n_of(arm.n, 'episodes')}, {share} (95 % interval {interval})."
    )


def _families(report: Report, loop: ClosedLoop) -> dict[str, list[Member]]:
    """Compressed arms of one codec and one delay, by rate, under what tells them from others."""
    arms, success = list(report.compressed.values()), report.measures[0]
    has_codecs = len({arm.codec for arm in arms}) > 1
    has_delays = any(arm.delay_ms for arm in arms)
    families: dict[str, list[Member]] = {}
    for arm in sorted(arms, key=lambda arm: arm.rate_requested):
        names = [arm.codec or ""] if has_codecs else []
        if has_delays:
            delay = f"with {arm.delay_ms:g} ms of delay on both"
            names.append(delay if arm.delay_ms else "without delay")
        member = Member(arm, loop.pairs[arm.name], success.paired.get(arm.name))
        families.setdefault(" ".join(names), []).append(member)
    return families


def _compare(name: str, family: list[Member]) -> list[str]:
    """Sentences on the arms of a family: one for each stretch of rates that fared alike."""
    stretches = [(kind, list(found)) for kind, found in groupby(family, key=lambda m: m.kind)]
    sentences = [
        sentence
        for k, (kind, stretch) in enumerate(stretches)
        for sentence in _stretch(kind, stretch, is_first=k == 0)
    ]
    return [
        f"{wording.opening(name)}: {each[0].lower()}{each[1:]}" if name else each
        for each in sentences
    ]


def _stretch(kind: str, stretch: list[Member], is_first: bool) -> list[str]:
    arms, pairs = [m.facts for m in stretch], [m.pair for m in stretch]
    margin = _size(pairs[0].noninferiority.margin)
    if kind == "no pairs":
        return [f"At {_rates(arms)} no pair of episodes is finished."]
    if kind == "non-inferior":
        up_to = is_first and len(arms) > 1
        rates = f"Up to {_rates(arms[-1:])}" if up_to else f"At {_rates(arms)}"
        return [
            f"{rates} the compressed policy loses less than {margin} against the dense one, if any "
            f"({_n(pairs)})."
        ]
    if kind == "undecided":
        return [_undecided(stretch, margin)]
    return [_lost(member, margin, kind) for member in stretch]


def _undecided(stretch: list[Member], margin: str) -> str:
    """What was seen, what that leaves open, and how many pairs would end it."""
    rates = _rates([member.facts for member in stretch])
    lows, highs = zip(*(m.change.interval or (-1.0, 1.0) for m in stretch if m.change), strict=True)
    n = max(member.pair.counts.n for member in stretch)
    leaves = "leaves" if n == 1 else "leave"
    open_ = wording.points_range((min(lows), max(highs)))
    return (
        f"Undecided at {rates}. {_seen(stretch)}. {wording.n_of(n, 'pairs')} of episodes {leaves} "
        f"a difference from {open_} points possible.{_outlook(stretch, margin)}"
    )


def _seen(stretch: list[Member]) -> str:
    """The dense arm's successes once, where all arms were paired with the same episodes of it."""
    counts = [member.pair.counts for member in stretch]
    arms = [
        f"{m.facts.name} {found.of_arm} of {found.n}"
        for m, found in zip(stretch, counts, strict=True)
    ]
    dense = [f"{m.pair.reference} {m.pair.counts.of_reference}" for m in stretch]
    if len({(found.of_reference, found.n) for found in counts}) == 1:
        told = [f"{dense[0]} of {counts[0].n}", *arms]
    else:
        told = [f"{arm} ({other})" for arm, other in zip(arms, dense, strict=True)]
    return wording.opening(", ".join(told))


def _outlook(stretch: list[Member], margin: str) -> str:
    """How many pairs would settle all of it, unless that many did not already."""
    hardest = max((m.pair for m in stretch), key=lambda pair: pair.noninferiority.n_needed or 0)
    needed = hardest.noninferiority.n_needed or 0
    if needed <= max(member.pair.counts.n for member in stretch):
        return ""
    about = "About" if hardest.counts.discordant else "At most about"
    pairs = f"{about} {wording.about(needed)}"
    return f" {pairs} would show that the loss is less than {margin}, if there is none."


def _rates(arms: Sequence[ArmFacts]) -> str:
    """As in: rates 0.5 (8.0 bits a weight) and 0.75 (4.0)."""
    texts = [f"{arm.rate_requested:g} ({arm.bits_per_weight:.1f})" for arm in arms]
    texts[0] = texts[0].replace(")", " bits a weight)")
    return f"{'rates' if len(arms) > 1 else 'rate'} {wording.listed(texts)}"


def _n(pairs: Sequence[PairedEpisodes]) -> str:
    numbers = {pair.counts.n for pair in pairs}
    fewest, most = min(numbers), max(numbers)
    number = wording.n_of(most, "pairs") if fewest == most else f"{fewest} to {most} pairs"
    return f"{number} of episodes" + (" each" if len(pairs) > 1 else "")


def _lost(member: Member, margin: str, kind: str) -> str:
    assert member.change
    bounds = [-100 * bound for bound in reversed(member.change.interval or ())]
    interval = " to ".join(f"{bound:.1f}" for bound in bounds)
    open_ = f" Whether that is more than {margin} is undecided." if kind == "worse" else ""
    return (
        f"At {_rates([member.facts])} the compressed policy loses {_size(-member.change.value)} "
        f"(95 % interval {interval}, {_n([member.pair])}).{open_}"
    )


def _size(share: float) -> str:
    """0.02 -> "2 points"."""
    text = f"{100 * share:.1f}".removesuffix(".0")
    return f"{text} point" if text == "1" else f"{text} points"
