"""report.json of an evaluation, and the summary a person reads on the screen."""

import statistics
from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from einsort_vla.checkpoint import CompressionSummary
from einsort_vla.plan import describe_cores
from envs.benchmark import load_task
from envs.protocol import Protocol
from eval.rollout import EpisodeRecord, Scene
from eval.statistics import pair_counts, paired_difference, wilson

SCHEMA = 1
DENSE, COMPRESSED = "dense", "compressed"


def build_report(
    records: Sequence[EpisodeRecord],
    scenes: Sequence[Scene],
    arms: Sequence[str],
    protocol: Protocol,
    rate: float,
    compression: CompressionSummary | None,
) -> dict[str, Any]:
    """The content of report.json, schema 1."""
    paired = _paired(records) if COMPRESSED in arms else None
    scene, numbers = scenes[0], [scene.episode for scene in scenes]
    return {
        "schema": SCHEMA,
        "rate_requested": rate,
        **_compression(compression),
        "protocol": {
            **protocol.as_dict(),
            "initial_states": f"stored, {min(numbers)} to {max(numbers)} of each task",
            "displacement_m": scene.displacement_m,
            "wrong_pictures": scene.wrong_pictures,
            "seed": scene.seed,
        },
        "arms": {arm: _arm([r for r in records if r.arm == arm]) for arm in arms},
        "paired": paired,
        "per_task": [
            {
                "suite": suite,
                "task_id": task_id,
                "language": load_task(suite, task_id).language,
                **{
                    arm: _arm([r for r in records if (r.scene.suite, r.scene.task_id) ==
                               (suite, task_id) and r.arm == arm])
                    for arm in arms
                },
            }
            for suite, task_id in dict.fromkeys((s.suite, s.task_id) for s in scenes)
        ],
        "complete": len([r for r in records if r.outcome != "error"]) == len(scenes) * len(arms),
    }  # fmt: skip


def _compression(summary: CompressionSummary | None) -> dict[str, Any]:
    if summary is None:
        return {"rate_achieved": 0.0, "bits_per_weight": 16.0, "core_kept_fraction": None,
                "order_bits_per_weight": {}, "bytes": None}  # fmt: skip
    return {
        "rate_achieved": summary.plan.rate,
        "bits_per_weight": summary.plan.bits_per_weight,
        "core_kept_fraction": summary.plan.core_kept_fraction,
        "order_bits_per_weight": summary.plan.order_bits_per_weight,
        "bytes": {DENSE: summary.dense_bytes, COMPRESSED: summary.compressed_bytes},
    }


def _arm(records: Sequence[EpisodeRecord]) -> dict[str, Any]:
    counted = [r for r in records if r.outcome != "error"]
    successes = sum(r.outcome == "success" for r in counted)
    chunk_ms = [ms for r in counted for ms in r.policy_ms]
    return {
        "episodes": len(counted),
        "successes": successes,
        "errors": len(records) - len(counted),
        "success_rate": successes / len(counted) if counted else None,
        "wilson95": wilson(successes, len(counted)),
        "median_chunk_ms": statistics.median(chunk_ms) if chunk_ms else None,
        "median_episode_s": statistics.median(r.wall_s for r in counted) if counted else None,
        "coded_layers": records[-1].layers if records else {},
    }


def _paired(records: Sequence[EpisodeRecord]) -> dict[str, Any]:
    by_scene: dict[Scene, dict[str, EpisodeRecord]] = {}
    for record in records:
        if record.outcome != "error":
            by_scene.setdefault(record.scene, {})[record.arm] = record
    pairs = [(arms[DENSE], arms[COMPRESSED]) for arms in by_scene.values() if len(arms) == 2]
    counts = pair_counts([(a.outcome == "success", b.outcome == "success") for a, b in pairs])
    found = paired_difference(*counts.values())
    difference, interval = found if found else (None, None)
    identical = sum(a.actions_sha256 == b.actions_sha256 for a, b in pairs)
    return {
        **counts,
        "difference": difference,
        "difference95": interval,
        "identical_actions": identical,
    }


def print_summary(report: dict[str, Any], console: Console) -> None:
    """The verdict in numbers, on less than a screen."""
    parts: list[Any] = [_task_table(report)]
    if report["bytes"]:
        dense, compressed = report["bytes"][DENSE], report["bytes"][COMPRESSED]
        parts.append(
            f"Rate {report['rate_achieved']:.4f} (requested {report['rate_requested']}), "
            f"{report['bits_per_weight']:.3f} bits a weight; weight file "
            f"{dense / 1e6:.2f} MB -> {compressed / 1e6:.2f} MB."
        )
        if report["core_kept_fraction"] is not None:
            orders = report["order_bits_per_weight"]
            parts.append(describe_cores(report["core_kept_fraction"], orders))
    if layers := report["arms"].get(COMPRESSED, {}).get("coded_layers"):
        counts = ", ".join(f"{name} {n}" for name, n in layers.items())
        parts.append(f"Coded layers by what multiplied them: {counts}.")
    paired = report["paired"]
    if paired and paired["difference95"]:
        low, high = paired["difference95"]
        parts.append(
            f"Compressed minus dense: {100 * paired['difference']:+.1f} points "
            f"(95 % interval {100 * low:+.1f} to {100 * high:+.1f}; paired, Newcombe); "
            f"only dense succeeded {paired['only_dense']}, only compressed "
            f"{paired['only_compressed']} times. "
            f"Identical actions in {paired['identical_actions']} of {_n_pairs(paired)} episodes."
        )
    if not report["complete"]:
        parts.append("INCOMPLETE: some episodes are missing or ended in an error; use --resume.")
    console.print(Group(*[Text(p) if isinstance(p, str) else p for p in parts]))


def card_text(report: dict[str, Any]) -> str:
    """The results for the model card of the compressed policy, in Markdown."""
    protocol, paired = report["protocol"], report["paired"]
    suites = sorted({task["suite"] for task in report["per_task"]})
    rows = [
        f"| {suite} | {_over(report, suite, DENSE)} | {_over(report, suite, COMPRESSED)} |"
        for suite in suites
    ]
    displaced = protocol["displacement_m"]
    scenes = f"initial states: {protocol['initial_states']}" + (
        f", objects displaced by up to {100 * displaced:g} cm" if displaced else ""
    )
    lines = [
        f"Closed loop on LIBERO, {scenes}. Successes, Wilson 95 % intervals:",
        "",
        "| suite | dense | compressed |",
        "|---|---|---|",
        *rows,
    ]
    if paired["difference95"]:
        low, high = paired["difference95"]
        lines += [
            "",
            f"Compressed minus dense: {100 * paired['difference']:+.1f} points (95 % interval "
            f"{100 * low:+.1f} to {100 * high:+.1f}; paired, Newcombe).",
        ]
    return "\n".join(lines)


def _over(report: dict[str, Any], suite: str, arm: str) -> str:
    """Successes of one arm on one suite, with the interval."""
    tasks = [task[arm] for task in report["per_task"] if task["suite"] == suite]
    k, n = (sum(task[key] for task in tasks) for key in ("successes", "episodes"))
    interval = wilson(k, n)
    if interval is None:
        return "no episodes"
    return f"{k}/{n} ({100 * interval[0]:.0f}-{100 * interval[1]:.0f} %)"


def _n_pairs(paired: dict[str, Any]) -> int:
    return sum(paired[key] for key in ("both", "only_dense", "only_compressed", "neither"))


def _task_table(report: dict[str, Any]) -> Table:
    table = Table(title="Successes on the stored initial states")
    table.add_column("task")
    for arm in report["arms"]:
        table.add_column(arm, justify="right")
    for task in report["per_task"]:
        counts = [_count(task[arm]) for arm in report["arms"]]
        table.add_row(f"{task['suite']} {task['task_id']}  {task['language']}", *counts)
    table.add_section()
    table.add_row("all", *[_count(arm) for arm in report["arms"].values()])
    table.add_row("rate, Wilson 95 %", *[_rate(arm) for arm in report["arms"].values()])
    ms = [f"{arm['median_chunk_ms'] or 0:.0f} ms" for arm in report["arms"].values()]
    table.add_row("median time of a chunk", *ms)
    return table


def _count(arm: dict[str, Any]) -> str:
    errors = f" ({arm['errors']} errors)" if arm["errors"] else ""
    return f"{arm['successes']}/{arm['episodes']}{errors}"


def _rate(arm: dict[str, Any]) -> str:
    if not arm["wilson95"]:
        return "no episodes"
    low, high = arm["wilson95"]
    return f"{100 * arm['success_rate']:.1f} % ({100 * low:.1f}-{100 * high:.1f})"
