"""The result of an evaluation in plain sentences."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from einsort_vla.results.wording import percent, percent_range

SEQUENTIAL = "Arms were stopped once decided, so the intervals are ones that hold at every look."
EXACT = (
    "The weights at {rates} are the dense ones bit for bit: such a policy acts as the dense one "
    "does, so the dense episodes count for both, and nothing was run twice."
)
SEVERAL = "Each interval is for its arm alone; none was widened for there being several."
Member = tuple[dict[str, Any], dict[str, Any]]  # an arm, and what it shows against dense


def state(report: dict[str, Any]) -> str:
    """What the episodes show and what they do not, of a report that lacks only this."""
    families = _families(report)
    sentences = [_compare(report, name, family) for name, family in families.items()]
    if not families:
        sentences = [_alone(name, arm) for name, arm in report["arms"].items()]
    arms = report["arms"].values()
    if shared := {arm["rate_requested"]: arm for arm in arms if arm["shares_episodes"]}:
        sentences.append(EXACT.format(rates=_rates(list(shared.values()))))
    if len(report["paired"]) > 1:
        sentences.append(SEVERAL)
    if report["sequential"] and families:
        sentences.append(SEQUENTIAL)
    if not report["complete"]:
        sentences.insert(0, "Not all episodes are in yet, so this may change.")
    return " ".join(sentences)


def interval_of(report: dict[str, Any], pair: dict[str, Any]) -> Sequence[float] | None:
    """The interval of a paired difference that the verdict rests on.

    Of a run that stops once it is decided, only the always-valid one holds.
    """
    return pair["always_valid95" if report["sequential"] else "tango95"]


def _alone(name: str, arm: dict[str, Any]) -> str:
    if not arm["episodes"]:
        return f"No episode of {name} is finished."
    return (
        f"{name}: {arm['successes']} of {arm['episodes']} episodes succeeded, "
        f"{percent(arm['success_rate'])} (95 % interval {percent_range(arm['wilson95'])})."
    )


def _families(report: dict[str, Any]) -> dict[str, list[Member]]:
    """Compressed arms of one codec and one delay, by rate, under what tells them from others."""
    arms = [report["arms"][name] for name in report["paired"]]
    has_codecs = len({arm["codec"] for arm in arms}) > 1
    has_delays = any(arm["delay_ms"] for arm in arms)
    families: dict[str, list[Member]] = {}
    for member in zip(arms, report["paired"].values(), strict=True):
        codec, delay_ms = member[0]["codec"], member[0]["delay_ms"]
        names = [codec] if has_codecs else []
        if has_delays:
            names.append(f"with {delay_ms:g} ms of delay on both" if delay_ms else "without delay")
        families.setdefault(" ".join(names), []).append(member)
    return {
        name: sorted(family, key=lambda member: member[0]["rate_requested"])
        for name, family in families.items()
    }


def _compare(report: dict[str, Any], name: str, family: list[Member]) -> str:
    """A sentence on the arms of a family: a clause for each stretch of rates that fared alike."""
    stretches = groupby(family, key=lambda member: _kind(report, member[1]))
    clauses = [
        clause
        for i, (kind, stretch) in enumerate(stretches)
        for clause in _clauses(report, kind, list(stretch), is_first=i == 0)
    ]
    sentence = (f"{name}: " if name else "") + "; ".join(clauses) + "."
    return sentence[0].upper() + sentence[1:]


def _kind(report: dict[str, Any], pair: dict[str, Any]) -> str:
    """The verdict, but "no pairs" without them, and "worse" where only by how much is undecided."""
    interval = interval_of(report, pair)
    if interval is None:
        return "no pairs"
    verdict = pair["noninferiority"]["verdict"]
    return "worse" if verdict == "undecided" and interval[1] < 0 else verdict


def _clauses(report: dict[str, Any], kind: str, stretch: list[Member], is_first: bool) -> list[str]:
    arms, pairs = zip(*stretch, strict=True)
    within = f"within {_size(report['margin'])}"
    if kind == "no pairs":
        return [f"at {_rates(arms)} no pair of episodes is finished"]
    if kind == "non-inferior":
        up_to = is_first and len(arms) > 1
        rates = f"up to {_rates(arms[-1:])}" if up_to else f"at {_rates(arms)}"
        return [
            f"{rates} the compressed policy is non-inferior to the dense one {within} "
            f"(n = {_n(pairs)})"
        ]
    if kind == "undecided":
        return [
            f"at {_rates(arms)} it cannot be told from dense {within} with n = {_n(pairs)}"
            + _outlook(pairs)
        ]
    return [
        f"at {_rates([arm])} it {_lost(report, pair)}"
        + (f", and whether that is {within} is undecided" if kind == "worse" else "")
        for arm, pair in stretch
    ]


def _rates(arms: Sequence[dict[str, Any]]) -> str:
    """As in: rates 0.5 (8.0 bits a weight) and 0.75 (4.0)."""
    texts = [f"{arm['rate_requested']:g} ({_bits(arm)})" for arm in arms]
    texts[0] = texts[0].replace(")", " bits a weight)")
    *others, last = texts
    return f"rates {', '.join(others)} and {last}" if others else f"rate {last}"


def _bits(arm: dict[str, Any]) -> str:
    return f"{arm['compression']['bits_per_weight']:.1f}"


def _n(pairs: Sequence[dict[str, Any]]) -> str:
    fewest, most = (extreme(pair["n"] for pair in pairs) for extreme in (min, max))
    number = f"{most}" if fewest == most else f"{fewest} to {most}"
    unit = "pair" if number == "1" else "pairs"
    return f"{number} {unit}" + (" each" if len(pairs) > 1 else "")


def _outlook(pairs: Sequence[dict[str, Any]]) -> str:
    """How many pairs would settle it, unless that many were not enough already."""
    hardest = max(pairs, key=lambda pair: pair["noninferiority"]["n_needed"] or 0)
    needed = hardest["noninferiority"]["n_needed"] or 0
    if needed <= max(pair["n"] for pair in pairs):
        return ""
    about = "about" if hardest["only_reference"] + hardest["only_arm"] else "at most about"
    rounded = int(float(f"{needed:.2g}"))
    return f", for which {about} {rounded} would be needed if the two are truly equal"


def _lost(report: dict[str, Any], pair: dict[str, Any]) -> str:
    bounds = [-100 * bound for bound in reversed(interval_of(report, pair) or ())]
    interval = " to ".join(f"{bound:.1f}" for bound in bounds)
    return f"loses {_size(-pair['difference'])} (95 % interval {interval}, n = {pair['n']})"


def _size(share: float) -> str:
    """0.02 -> "2 points"."""
    text = f"{100 * share:.1f}".removesuffix(".0")
    return f"{text} point" if text == "1" else f"{text} points"
