"""report.md: the results as Markdown, for the model card of a compressed policy."""

from pathlib import Path
from typing import Any

from einsort_vla.errors import unknown_name
from einsort_vla.results import wording
from einsort_vla.results.folder import CARD
from einsort_vla.results.motion import TIMES, motion_changes
from einsort_vla.results.verdict import interval_of, state

HEADER = (
    "| arm | rate | bits a weight | weight file | n | success | 95 % "
    "| difference to dense, points | 95 % | pairs | verdict | jerk to dense |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|"
)

N_PAIR_CELLS = 5  # from the difference on

Report = dict[str, Any]


def write_card(report: Report, folder: Path) -> Path:
    """Write report.md into the folder of the run whose report this is."""
    path = folder / CARD
    path.write_text(card_text(report), encoding="utf-8")
    return path


def card_text(report: Report, arm: str | None = None) -> str:
    """Verdict, arms, protocol and motion of a run, in Markdown without a heading.

    Args:
        report: content of report.json, schema 2.
        arm: the compressed arm the text is about, with its dense arm; None for all.

    Raises:
        UsageError: the run has no such compressed arm.
    """
    if arm is not None:
        report = _only(report, arm)
    rows = [_row(report, name) for name in report["arms"]]
    parts = [f"**{report['verdict']}**", "\n".join([HEADER, *rows]), _protocol(report)]
    parts += [_motion(report, name) for name in report["paired"]]
    return "\n\n".join(parts) + "\n"


def _only(report: Report, arm: str) -> Report:
    """The report of one compressed arm and its dense arm."""
    if arm not in report["paired"]:
        raise unknown_name("compressed arm", arm, report["paired"])
    pair = report["paired"][arm]
    arms = {name: report["arms"][name] for name in (pair["reference"], arm)}
    part = {**report, "arms": arms, "paired": {arm: pair}}
    return {**part, "verdict": state(part)}


def _row(report: Report, name: str) -> str:
    arm, pair = report["arms"][name], report["paired"].get(name)
    cells = [
        name,
        *_size(arm),
        f"{arm['episodes']}",
        f"{wording.count(arm)}, {wording.percent(arm['success_rate'])}",
        wording.percent_range(arm["wilson95"]),
        *(_pair(report, pair) if pair else [wording.DASH] * N_PAIR_CELLS),
    ]
    return f"| {' | '.join(cells)} |"


def _size(arm: Report) -> list[str]:
    """Rate, bits and bytes."""
    size = arm["compression"]
    if not size:
        return [wording.DASH, "16", wording.DASH]
    rate = f"{arm['rate_requested']:g} (reached {size['rate_achieved']:.4f})"
    sizes = [wording.megabytes(size["bytes"][key]) for key in ("compressed", "dense")
             if size["bytes"]]  # fmt: skip
    return [rate, wording.number(size["bits_per_weight"]), " of ".join(sizes) or wording.DASH]


def _pair(report: Report, pair: Report) -> list[str]:
    """What a compressed arm shows against its reference, in `N_PAIR_CELLS` cells."""
    jerk = pair["motion"]["jerk_m_s3"]
    bounds = [wording.number(bound) for bound in jerk["interval95"] or []]
    interval = f" ({' to '.join(bounds)})" if bounds else ""
    return [
        wording.points(pair["difference"]),
        wording.points_range(interval_of(report, pair)),
        f"{pair['n']}",
        pair["noninferiority"]["verdict"],
        wording.DASH if jerk["ratio"] is None else f"{TIMES} {jerk['ratio']:.2f}{interval}",
    ]


def _protocol(report: Report) -> str:
    scenes, tasks = report["scenes"], report["per_task"]
    suites = ", ".join(dict.fromkeys(task["suite"] for task in tasks))
    moved = scenes["displacement_m"]
    parts = [
        f"Closed loop on LIBERO ({suites}; {len(tasks)} tasks)",
        f"protocol {report['protocol'].get('name', wording.DASH)}",
        f"{scenes['initial_states']} initial states",
        *[f"objects displaced by up to {100 * moved:g} cm"] * bool(moved),
        *["pictures of another scene"] * bool(scenes["wrong_pictures"]),
        f"margin {100 * report['margin']:g} points",
    ]
    interval = "always-valid" if report["sequential"] else "Tango"
    return (
        f"{', '.join(parts)}. 95 % intervals: Wilson for success, {interval} for the difference "
        "over pairs of episodes from the same start."
    )


def _motion(report: Report, name: str) -> str:
    changes = [(metric, found[name]) for metric, found in motion_changes(report)]
    told = [
        f"{metric.title.lower()} {change.text} ({change.interval})"
        for metric, change in changes
        if change
    ]
    listed = ", ".join(told) or "no pair that both solve"
    return f"Motion of {name} against {report['paired'][name]['reference']}: {listed}."
