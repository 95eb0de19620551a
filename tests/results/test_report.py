"""report.json of made-up episodes: counts, pairs, completeness, verdicts; and the screen."""

import io

import pytest
from msgspec.structs import replace
from rich.console import Console

from einsort_vla.cli.console import PlainConsole
from einsort_vla.errors import CheckpointError
from einsort_vla.results.closed_loop import build_report, make_report
from einsort_vla.results.episode import EpisodeRecord, Scene
from einsort_vla.results.measures import Estimate
from einsort_vla.results.report import Tally, read_report
from einsort_vla.results.summary import print_report
from einsort_vla.results.verdict import state
from eval.run.progress import counting
from tests.results.made_up import change_design, make_records, make_run, write_run

SCENES = [Scene("libero_object", 0, episode, seed=0) for episode in range(4)]
DENSE = ["success", "success", "failure", "success"]
COMPRESSED = ["success", "failure", "failure", "error"]
ARM = "curve 0.5"


def small_run(**changes):
    run = make_run(n_states=4, rates=[0.5], delays=[0.0])
    return change_design(run, **{"tasks": run.design.tasks[:1], **changes})


def many_states(n, **changes):
    """The small run with `n` states of its one task."""
    task = replace(small_run().design.tasks[0], states=tuple(range(n)))
    return small_run(tasks=(task,), **changes)


def small_records():
    for arm, outcomes in (("dense", DENSE), ("curve 0.5", COMPRESSED)):
        for scene, outcome in zip(SCENES, outcomes, strict=True):
            yield EpisodeRecord(
                scene, arm, outcome, 100, wall_s=5.0, latency_ms=(30.0, 40.0), actions_sha256="a",
                layers={"cpu": 3} if arm != "dense" else {},
                motion={"jerk_m_s3": 8.0 if arm == "dense" else 4.0, "seam_jump": 0.1},
                divergence={"curve 0.5": 0.25} if arm == "dense" else {},
            )  # fmt: skip


def outcomes_run(lost, gained, same, **changes):
    """A report of pairs with these outcomes at rate 0.5."""
    scenes = [Scene("libero_object", 0, i, seed=0) for i in range(lost + gained + same)]
    pairs = ["+-"] * lost + ["-+"] * gained + ["++"] * same
    records = [
        EpisodeRecord(scene, arm, "success" if sign == "+" else "failure", 100, 5.0)
        for scene, pair in zip(scenes, pairs, strict=True)
        for arm, sign in zip(("dense", ARM), pair, strict=True)
    ]
    return build_report(many_states(len(scenes), **changes), records)


def test_an_exact_arm_has_the_episodes_of_its_reference():
    dense, coded = small_run().design.arms
    run = small_run(arms=(dense, replace(coded, shares_episodes=True)))
    ran = [record for record in small_records() if record.arm == "dense"]
    report = build_report(run, ran)
    for name in ("dense", ARM):
        found = report.closed_loop.arms[name]
        assert (found.planned, found.tally) == (4, Tally(episodes=4, successes=3, errors=0))
    assert report.complete is True
    pair = report.closed_loop.pairs[ARM]
    assert pair.identical_actions == 4
    assert pair.tango95 == (0, 0)  # known, not estimated
    assert pair.noninferiority.verdict == "non-inferior"
    assert report.measures[0].paired[ARM] == Estimate(0.0, 0.0, 0.0, 4)
    assert "rate 0.5 (8.0 bits a weight) are the dense ones bit for bit" in report.verdict


def test_errors_are_not_failures_and_make_the_run_incomplete():
    report = build_report(small_run(), list(small_records()))
    arm, (success,) = report.closed_loop.arms[ARM], report.measures
    assert (arm.planned, arm.tally) == (4, Tally(episodes=3, successes=1, errors=1))
    assert (success.arms[ARM].value, success.arms[ARM].n, success.errors) == (1 / 3, 3, {ARM: 1})
    times = arm.latency_ms
    assert (times.p50, times.p95, times.p99, times.n) == pytest.approx((35, 40, 40, 6))
    assert arm.coded_layers == {"cpu": 3}
    assert report.complete is False
    assert report.verdict.startswith("Not all episodes are in yet, so this may change. Undecided")


def test_only_scenes_both_arms_finished_are_paired():
    report = build_report(small_run(), list(small_records()))
    pair, counts = report.closed_loop.pairs[ARM], report.closed_loop.pairs[ARM].counts
    assert (counts.both, counts.only_reference, counts.only_arm, counts.neither) == (1, 1, 0, 1)
    assert report.measures[0].paired[ARM].value == -1 / 3
    assert pair.identical_actions == 3
    assert pair.divergence == Estimate(0.25, None, None, 4)
    assert pair.motion["jerk_m_s3"] == Estimate(pytest.approx(0.5), None, None, 1)
    assert pair.motion["seam_jump"].value == 0
    assert "saturation" not in pair.motion  # which these episodes lack
    assert pair.clustered95 is None  # of one task


def test_an_arm_is_paired_with_the_dense_one_of_its_delay():
    run = make_run(n_states=2)
    report = build_report(run, make_records(run))
    assert report.closed_loop.pairs["curve 0.9 +100 ms"].reference == "dense +100 ms"
    assert "With 100 ms of delay on both: " in report.verdict
    assert "Each interval is for its arm alone" in report.verdict


def test_a_run_that_has_just_begun_says_nothing_and_is_read_as_it_was_written(tmp_path):
    folder = write_run(tmp_path / "run", make_run(n_states=2), [])
    report = make_report(folder)
    assert read_report(folder) == report
    arm, pair = report.closed_loop.arms[ARM], report.closed_loop.pairs[ARM]
    unknown = [arm.latency_ms, arm.median_episode_s, pair.tango95, pair.always_valid95,
               pair.mcnemar_p, pair.divergence, pair.noninferiority.n_needed]  # fmt: skip
    assert unknown == [None] * len(unknown)
    assert (arm.motion, pair.motion, report.measures[0].paired) == ({}, {}, {})
    assert "no pair of episodes is finished" in report.verdict


def test_a_report_of_episodes_is_read_as_it_was_written(tmp_path):
    run = make_run(n_states=3)
    folder = write_run(tmp_path / "run", run, make_records(run))
    report = make_report(folder)
    assert read_report(folder) == report
    assert report.complete


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"has no run\.json, so it is no run folder"):
        make_report(tmp_path)


AT = "at rate 0.5 (8.0 bits a weight)"


@pytest.mark.parametrize(
    ("lost", "gained", "same", "verdict"),
    [
        (1, 1, 498, f"A{AT[1:]} the compressed policy loses less than 2 points against the dense "
         "one, if any (500 pairs of episodes)."),
        (15, 0, 85, f"A{AT[1:]} the compressed policy loses 15 points (95 % interval 9.3 to 23.3, "
         "100 pairs of episodes)."),
        (5, 0, 95, f"A{AT[1:]} the compressed policy loses 5 points (95 % interval 1.1 to 11.2, "
         "100 pairs of episodes). Whether that is more than 2 points is undecided."),
        (0, 0, 20, f"Undecided {AT}. Dense 20 of 20, curve 0.5 20 of 20. 20 pairs of episodes "
         "leave a difference from \N{MINUS SIGN}16.1 to +16.1 points possible. At most about "
         "2,800 would show that the loss is less than 2 points, if there is none."),
        (1, 1, 18, f"Undecided {AT}. Dense 19 of 20, curve 0.5 19 of 20. 20 pairs of episodes "
         "leave a difference from \N{MINUS SIGN}19.9 to +19.9 points possible. About 2,000 would "
         "show that the loss is less than 2 points, if there is none."),
    ],
)  # fmt: skip
def test_the_verdict_in_words(lost, gained, same, verdict):
    assert outcomes_run(lost, gained, same).verdict == verdict


def test_up_to_names_only_rates_below_the_first_that_is_not_shown():
    report = outcomes_run(1, 1, 498)
    (success,), loop = report.measures, report.closed_loop
    arms, pairs, paired = list(report.arms), dict(loop.pairs), dict(success.paired)
    for rate, source in ((0.75, "non-inferior"), (0.8, "undecided"), (0.9, "non-inferior")):
        name, known = f"curve {rate}", pairs[ARM]
        judged = replace(known.noninferiority, verdict=source, n_needed=900)
        arms.append(replace(report.arms[1], name=name, rate_requested=rate))
        pairs[name], paired[name] = replace(known, noninferiority=judged), paired[ARM]
    changed = replace(
        report, arms=tuple(arms), measures=(replace(success, paired=paired),),
        closed_loop=replace(loop, pairs=pairs),
    )  # fmt: skip
    assert state(changed).startswith(
        "Up to rate 0.75 (8.0 bits a weight) the compressed policy loses less than 2 points "
        "against the dense one, if any (500 pairs of episodes each). Undecided at rate 0.8 (8.0 "
        "bits a weight). Dense 499 of 500, curve 0.8 499 of 500. 500 pairs of episodes leave a "
        "difference from \N{MINUS SIGN}0.9 to +0.9 points possible. About 900 would show "
        "that the loss is less than 2 points, if there is none. At rate 0.9"
    )


def test_a_dense_arm_alone_is_stated_with_its_interval():
    run = make_run(n_states=1, rates=[], delays=[0.0])
    assert build_report(run, make_records(run)).verdict == (
        "Dense succeeded in 4 of 4 episodes, 100.0 % (95 % interval 51.0 to 100.0 %)."
    )


def test_a_sequential_run_is_complete_once_decided_and_judged_by_its_own_interval():
    scenes = [Scene("libero_object", 0, i, seed=0) for i in range(150)]
    records = [EpisodeRecord(scene, arm, "success", 100, 5.0)
               for scene in scenes for arm in ("dense", ARM)]  # fmt: skip
    run = many_states(500, sequential=True, margin=0.05)
    report = build_report(run, records)
    assert report.complete
    pair = report.closed_loop.pairs[ARM]
    assert pair.noninferiority.lower_bound == pytest.approx(pair.always_valid95[0])
    assert report.measures[0].paired[ARM].interval == pair.always_valid95
    assert not build_report(many_states(500, margin=0.05), records).complete
    assert not build_report(run, records[:100]).complete


def test_the_summary_fits_on_the_screen_and_says_what_to_do_next():
    run = make_run(n_states=5, rates=[0.5, 0.9], delays=[0.0])
    records = make_records(run)
    records[0] = replace(records[0], outcome="error", error="RuntimeError: x")
    arms = [replace(arm, weight_bytes=None) for arm in run.design.arms]  # before they are made
    console = Console(width=100, file=io.StringIO())
    print_report(build_report(change_design(run, arms=tuple(arms)), records), console)
    text = console.file.getvalue()
    assert text.count("\n") < 45
    assert max(map(len, text.splitlines())) <= 100
    assert "1 error" in text
    assert "(1 error)" in text
    assert "put the bowl on the stove" in text
    assert "the same command with --resume" in " ".join(text.split())
    assert "None" not in text


def test_brackets_and_colons_of_names_are_printed_as_they_are():
    run, strange = make_run(n_states=1, rates=[0.5], delays=[0.0]), "[bold]a :smile: [/] {b}"
    tasks = tuple(replace(task, language=strange) for task in run.design.tasks)
    console = PlainConsole(width=200, file=io.StringIO(), force_terminal=True)
    print_report(build_report(change_design(run, tasks=tasks), make_records(run)), console)
    with console.status(strange), counting(strange, [strange], console) as step:
        step(strange, strange)
    console.print(strange)
    text = console.file.getvalue()
    assert text.count(strange) >= len(tasks) + 4
    assert "\N{SMILING FACE WITH OPEN MOUTH AND SMILING EYES}" not in text
