"""The report of a closed-loop run, made of its run.json and its episodes."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from einsort_vla.results.arms import ArmFacts
from einsort_vla.results.episode import EpisodeRecord, read_episodes
from einsort_vla.results.measures import Estimate, Measure
from einsort_vla.results.motion import METRICS, Motion
from einsort_vla.results.noninferiority import NonInferiority, judge
from einsort_vla.results.pairs import compare_motion, count, count_by_task, match
from einsort_vla.results.report import (
    ArmEpisodes,
    ClosedLoop,
    PairedEpisodes,
    Percentiles,
    Report,
    Tally,
    TaskResult,
    write_report,
)
from einsort_vla.results.run import CLOSED_LOOP, LOG, Design, Run, Task, design_of, read_run
from einsort_vla.results.sequential import betting_interval, judge_sequence
from einsort_vla.results.statistics import clustered_bootstrap, mcnemar_p, newcombe, tango, wilson
from einsort_vla.results.verdict import state


def make_report(folder: Path) -> Report:
    """Make report.json anew from the run.json and episodes.jsonl beside it, and return it.

    Raises:
        CheckpointError: it is no folder of a closed-loop run.
    """
    run = read_run(folder)
    design_of(run, folder)
    report = build_report(run, read_episodes(folder / LOG))
    write_report(report, folder)
    return report


def build_report(run: Run, records: Sequence[EpisodeRecord]) -> Report:
    """What the episodes of a closed-loop run show.

    Args:
        run: with its design.
        records: at most one per scene and arm, in the order in which they ended.
    """
    design = run.design
    assert design
    records = [*records, *_shared(design, records)]
    planned = sum(len(task.states) for task in design.tasks)
    arms = {arm.name: _arm(arm, planned, records) for arm in design.arms}
    pairs = {arm.name: _paired(design, records, arm) for arm in design.arms if arm.reference}
    report = Report(
        kind=CLOSED_LOOP,
        verdict="",
        complete=_is_complete(design, arms, pairs),
        arms=design.arms,
        measures=(success_measure(design, arms, pairs),),
        protocol=design.protocol,
        run=run,
        closed_loop=ClosedLoop(
            arms=arms, pairs=pairs, tasks=tuple(_task(task, arms, records) for task in design.tasks)
        ),
    )
    return replace(report, verdict=state(report))


def success_measure(
    design: Design, arms: Mapping[str, ArmEpisodes], pairs: Mapping[str, PairedEpisodes]
) -> Measure:
    """Success rates, and their paired differences with the interval that the verdict rests on.

    Of a run that stops once it is decided, only the always-valid interval holds.
    """
    paired: dict[str, Estimate] = {}
    for name, pair in pairs.items():
        interval = pair.always_valid95 if design.sequential else pair.tango95
        if pair.counts.difference is not None:
            paired[name] = Estimate.of(pair.counts.difference, interval, pair.counts.n)
    kind = "Always-valid" if design.sequential else "Tango's"
    return Measure(
        name="success",
        better="higher",
        counted="episodes",
        arms={name: _success(arm.tally) for name, arm in arms.items()},
        paired=paired,
        paired_as="difference",
        interval="Wilson's interval for the success of each arm. "
        f"{kind} interval for the difference, over pairs of episodes from the same start.",
        unit="%",
        margin=design.margin,
        errors={name: arm.tally.errors for name, arm in arms.items() if arm.tally.errors},
    )


def _success(tally: Tally) -> Estimate:
    share = tally.successes / tally.episodes if tally.episodes else 0.0
    return Estimate.of(share, wilson(tally.successes, tally.episodes), tally.episodes)


def _shared(design: Design, records: Sequence[EpisodeRecord]) -> list[EpisodeRecord]:
    """Episodes of arms whose weights are their reference's bit for bit, and which were not run."""
    return [
        replace(record, arm=arm.name, divergence={})
        for arm in design.arms
        if arm.shares_episodes
        for record in records
        if record.arm == arm.reference
    ]


def _is_complete(
    design: Design, arms: Mapping[str, ArmEpisodes], pairs: Mapping[str, PairedEpisodes]
) -> bool:
    """Whether each arm finished what was planned, or is settled where that ends it."""
    shared = {arm.name for arm in design.arms if arm.shares_episodes}
    settled = {
        name: pair.noninferiority.verdict != "undecided" or name in shared
        for name, pair in pairs.items()
    }
    for name, arm in arms.items():
        waiting_for_it = [settled[other] for other, pair in pairs.items() if pair.reference == name]
        is_settled = settled.get(name, bool(waiting_for_it) and all(waiting_for_it))
        if arm.tally.episodes < arm.planned and not (design.sequential and is_settled):
            return False
    return True


def _arm(arm: ArmFacts, planned: int, records: Sequence[EpisodeRecord]) -> ArmEpisodes:
    own = [record for record in records if record.arm == arm.name]
    counted = [record for record in own if record.outcome != "error"]
    wall_s = [record.wall_s for record in counted if record.wall_s is not None]
    return ArmEpisodes(
        planned=planned,
        tally=_tally(own),
        latency_ms=_percentiles([ms for record in counted for ms in record.latency_ms]),
        median_episode_s=statistics.median(wall_s) if wall_s else None,
        coded_layers=counted[-1].layers if counted else {},
        memory_bytes=max((r.memory_bytes for r in counted if r.memory_bytes), default=None),
        motion=_medians([record.motion for record in counted if record.motion]),
        per_suite={
            suite: _tally([record for record in own if record.scene.suite == suite])
            for suite in dict.fromkeys(record.scene.suite for record in own)
        },
    )


def _tally(records: Sequence[EpisodeRecord]) -> Tally:
    counted = [record for record in records if record.outcome != "error"]
    successes = sum(record.is_success for record in counted)
    return Tally(len(counted), successes, len(records) - len(counted))


def _percentiles(ms: Sequence[float]) -> Percentiles | None:
    if not ms:
        return None
    return Percentiles(*(float(np.percentile(ms, share)) for share in (50, 95, 99)), n=len(ms))


def _medians(motions: Sequence[Motion]) -> Motion:
    found = {key: [motion[key] for motion in motions if key in motion] for key in METRICS}
    return {key: statistics.median(values) for key, values in found.items() if values}


def _paired(design: Design, records: Sequence[EpisodeRecord], arm: ArmFacts) -> PairedEpisodes:
    assert arm.reference
    pairs = match(records, arm.reference, arm.name)
    counts, differences = count(pairs), [pair.difference for pair in pairs]
    margin = design.margin
    judged = judge_sequence(differences, margin) if design.sequential else judge(counts, margin)
    found = PairedEpisodes(
        reference=arm.reference,
        counts=counts,
        newcombe95=newcombe(counts),
        tango95=tango(counts),
        clustered95=clustered_bootstrap(count_by_task(pairs)),
        always_valid95=betting_interval(differences) if pairs else None,
        mcnemar_p=mcnemar_p(counts),
        identical_actions=sum(pair.acted_alike for pair in pairs),
        noninferiority=judged,
        motion=compare_motion(pairs),
        divergence=_divergence(records, arm.reference, arm.name),
    )
    return _known_equal(found, margin) if arm.shares_episodes and pairs else found


def _known_equal(pair: PairedEpisodes, margin: float) -> PairedEpisodes:
    """Of an arm that is its reference bit for bit: there is no difference to estimate."""
    names = ("newcombe95", "tango95", "clustered95", "always_valid95")
    judged = NonInferiority(margin, "non-inferior", lower_bound=0.0, n_needed=None)
    motion = {key: Estimate.of(m.value, (m.value, m.value), m.n) for key, m in pair.motion.items()}
    return replace(pair, noninferiority=judged, motion=motion, **dict.fromkeys(names, (0.0, 0.0)))


def _divergence(records: Sequence[EpisodeRecord], reference: str, arm: str) -> Estimate | None:
    found = [r.divergence[arm] for r in records if r.arm == reference and arm in r.divergence]
    return Estimate(statistics.fmean(found), None, None, len(found)) if found else None


def _task(
    task: Task, arms: Mapping[str, ArmEpisodes], records: Sequence[EpisodeRecord]
) -> TaskResult:
    own = [record for record in records if (record.scene.suite, record.scene.task_id) == task.key]
    return TaskResult(
        suite=task.suite,
        task_id=task.task_id,
        language=task.language,
        arms={name: _tally([record for record in own if record.arm == name]) for name in arms},
    )
