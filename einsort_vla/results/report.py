"""report.json of an evaluation: all that is printed or drawn of it, made of plain data."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from einsort_vla.results.episode import EpisodeRecord, Motion, read_episodes
from einsort_vla.results.folder import LOG, REPORT, read_run
from einsort_vla.results.noninferiority import NonInferiority, judge
from einsort_vla.results.pairs import Pair, compare_motion, count, count_by_task, match
from einsort_vla.results.sequential import betting_interval, judge_sequence
from einsort_vla.results.statistics import (
    clustered_bootstrap,
    mcnemar_p,
    newcombe,
    tango,
    wilson,
)
from einsort_vla.results.verdict import state

SCHEMA = 2
FROM_RUN = ("policy", "protocol", "scenes", "margin", "sequential", "versions", "machine",
            "git_commit", "config")  # fmt: skip
ARM_FACTS = ("codec", "rate_requested", "delay_ms", "compression")
PERCENTILES = {"p50": 50, "p95": 95, "p99": 99}


def write_report(folder: Path) -> dict[str, Any]:
    """Make report.json anew from the run.json and episodes.jsonl beside it, and return it."""
    report = build_report(read_run(folder), read_episodes(folder / LOG))
    text = json.dumps(report, indent=2, allow_nan=False) + "\n"
    (folder / REPORT).write_text(text, encoding="utf-8")
    return report


def build_report(run: dict[str, Any], records: Sequence[EpisodeRecord]) -> dict[str, Any]:
    """The content of report.json, schema 2.

    Args:
        run: content of run.json.
        records: at most one per scene and arm, in the order in which they ended.
    """
    planned = sum(len(task["states"]) for task in run["tasks"])
    records = [*records, *_shared(run, records)]
    arms = {arm["name"]: _arm(arm, planned, records) for arm in run["arms"]}
    paired = {
        arm["name"]: _paired(run, records, arm)
        for arm in run["arms"]
        if arm["reference"] is not None
    }
    report = {
        "schema": SCHEMA,
        "complete": _is_complete(run, arms, paired),
        **{key: run.get(key) for key in FROM_RUN},
        "arms": arms,
        "paired": paired,
        "per_task": [_task(task, arms, records) for task in run["tasks"]],
    }
    return {"verdict": state(report), **report}


def _shared(run: dict[str, Any], records: Sequence[EpisodeRecord]) -> list[EpisodeRecord]:
    """Episodes of arms whose weights are their reference's bit for bit, and which were not run."""
    return [
        replace(record, arm=arm["name"], divergence={})
        for arm in run["arms"]
        if arm.get("shares_episodes")
        for record in records
        if record.arm == arm["reference"]
    ]


def _is_complete(run: dict[str, Any], arms: dict[str, Any], paired: dict[str, Any]) -> bool:
    """Whether each arm finished what was planned, or is settled where that ends it."""
    settled = {
        name: pair["noninferiority"]["verdict"] != "undecided" or arms[name]["shares_episodes"]
        for name, pair in paired.items()
    }
    for name, arm in arms.items():
        waiting_for_it = [
            settled[other] for other, pair in paired.items() if pair["reference"] == name
        ]
        is_settled = settled.get(name, bool(waiting_for_it) and all(waiting_for_it))
        if arm["episodes"] < arm["planned"] and not (run.get("sequential") and is_settled):
            return False
    return True


def _arm(arm: dict[str, Any], planned: int, records: Sequence[EpisodeRecord]) -> dict[str, Any]:
    own = [record for record in records if record.arm == arm["name"]]
    counted = [record for record in own if record.outcome != "error"]
    chunk_ms = [ms for record in counted for ms in record.policy_ms]
    return {
        **{key: arm.get(key) for key in ARM_FACTS},
        "shares_episodes": bool(arm.get("shares_episodes")),
        "planned": planned,
        **_tally(own),
        "latency_ms": {
            name: float(np.percentile(chunk_ms, share)) if chunk_ms else None
            for name, share in PERCENTILES.items()
        },
        "median_episode_s": _median([record.wall_s for record in counted]),
        "coded_layers": counted[-1].layers if counted else {},
        "motion": {
            field.name: _median([getattr(r.motion, field.name) for r in counted if r.motion])
            for field in fields(Motion)
        },
        "per_suite": {
            suite: _tally([record for record in own if record.scene.suite == suite])
            for suite in dict.fromkeys(record.scene.suite for record in own)
        },
    }


def _tally(records: Sequence[EpisodeRecord]) -> dict[str, Any]:
    """An episode that ended in an error is neither a success nor a failure."""
    counted = [record for record in records if record.outcome != "error"]
    successes = sum(record.is_success for record in counted)
    return {
        "episodes": len(counted),
        "successes": successes,
        "errors": len(records) - len(counted),
        "success_rate": successes / len(counted) if counted else None,
        "wilson95": wilson(successes, len(counted)),
    }


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _paired(
    run: dict[str, Any], records: Sequence[EpisodeRecord], arm: dict[str, Any]
) -> dict[str, Any]:
    reference, name = arm["reference"], arm["name"]
    pairs = match(records, reference, name)
    counts, differences = count(pairs), [pair.difference for pair in pairs]
    margin = run["margin"]
    judged = judge_sequence(differences, margin) if run.get("sequential") else judge(counts, margin)
    found = {
        "reference": reference,
        **asdict(counts),
        "n": counts.n,
        "difference": counts.difference,
        "newcombe95": newcombe(counts),
        "tango95": tango(counts),
        "clustered95": clustered_bootstrap(count_by_task(pairs)),
        "mcnemar_p": mcnemar_p(counts),
        "identical_actions": sum(_acted_alike(pair) for pair in pairs),
        "noninferiority": asdict(judged),
        "always_valid95": betting_interval(differences) if pairs else None,
        "motion": compare_motion(pairs),
        "divergence": _divergence(records, reference, name),
    }
    return found | _known_equal(margin) if arm.get("shares_episodes") and pairs else found


def _known_equal(margin: float) -> dict[str, Any]:
    """Of an arm that is its reference bit for bit: there is no difference to estimate."""
    intervals = ("newcombe95", "tango95", "clustered95", "always_valid95")
    judged = NonInferiority(margin, "non-inferior", lower_bound=0.0, n_needed=None)
    return {"noninferiority": asdict(judged), **dict.fromkeys(intervals, (0.0, 0.0))}


def _acted_alike(pair: Pair) -> bool:
    return (
        bool(pair.arm.actions_sha256) and pair.arm.actions_sha256 == pair.reference.actions_sha256
    )


def _divergence(
    records: Sequence[EpisodeRecord], reference: str, arm: str
) -> dict[str, Any] | None:
    found = [r.divergence[arm] for r in records if r.arm == reference and arm in r.divergence]
    return {"mean": statistics.fmean(found), "n": len(found)} if found else None


def _task(
    task: dict[str, Any], arms: dict[str, Any], records: Sequence[EpisodeRecord]
) -> dict[str, Any]:
    key = task["suite"], task["task_id"]
    own = [record for record in records if (record.scene.suite, record.scene.task_id) == key]
    return {
        **{name: task[name] for name in ("suite", "task_id", "language")},
        "arms": {name: _tally([record for record in own if record.arm == name]) for name in arms},
    }
