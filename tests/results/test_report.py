"""report.json of made-up episodes: counts, pairs, completeness, verdicts; and the screen."""

import dataclasses
import io
import json

import pytest
from rich.console import Console

from einsort_vla.errors import CheckpointError
from einsort_vla.results.episode import EpisodeRecord, Motion, Scene
from einsort_vla.results.report import build_report, write_report
from einsort_vla.results.summary import print_summary
from einsort_vla.results.verdict import state
from tests.results.made_up import make_records, make_run, write_run

SCENES = [Scene("libero_object", 0, episode, seed=0) for episode in range(4)]
DENSE = ["success", "success", "failure", "success"]
COMPRESSED = ["success", "failure", "failure", "error"]


def small_run(**changes):
    run = make_run(n_states=4, rates=[0.5], delays=[0.0])
    return {**run, "tasks": run["tasks"][:1], **changes}


def small_records():
    for arm, outcomes in (("dense", DENSE), ("leader 0.5", COMPRESSED)):
        for scene, outcome in zip(SCENES, outcomes, strict=True):
            yield EpisodeRecord(
                scene, arm, outcome, 100, wall_s=5.0, policy_ms=[30.0, 40.0], actions_sha256="a",
                layers={"cpu": 3} if arm != "dense" else {},
                motion=Motion(1.0, 8.0 if arm == "dense" else 4.0, 2, 0.1, 0.0, 5.0),
                divergence={"leader 0.5": 0.25} if arm == "dense" else {},
            )  # fmt: skip


def outcomes_run(lost, gained, same, **changes):
    """A report of pairs with these outcomes at rate 0.5."""
    scenes = [Scene("libero_object", 0, i, seed=0) for i in range(lost + gained + same)]
    run = small_run(**changes)
    run["tasks"][0]["states"] = list(range(len(scenes)))
    pairs = ["+-"] * lost + ["-+"] * gained + ["++"] * same
    records = [
        EpisodeRecord(scene, arm, "success" if sign == "+" else "failure", 100, 5.0)
        for scene, pair in zip(scenes, pairs, strict=True)
        for arm, sign in zip(("dense", "leader 0.5"), pair, strict=True)
    ]
    return build_report(run, records)


def test_an_exact_arm_has_the_episodes_of_its_reference():
    run = small_run()
    run["arms"][1]["shares_episodes"] = True
    ran = [record for record in small_records() if record.arm == "dense"]
    report = build_report(run, ran)
    own = {"planned": 4, "episodes": 4, "successes": 3, "errors": 0}
    for name in ("dense", "leader 0.5"):
        assert {key: report["arms"][name][key] for key in own} == own
    assert report["complete"] is True
    pair = report["paired"]["leader 0.5"]
    assert pair["identical_actions"] == 4
    assert pair["tango95"] == (0, 0)  # known, not estimated
    assert pair["noninferiority"]["verdict"] == "non-inferior"
    assert "rate 0.5 (8.0 bits a weight) are the dense ones bit for bit" in report["verdict"]


def test_errors_are_not_failures_and_make_the_run_incomplete():
    report = build_report(small_run(), list(small_records()))
    arm = report["arms"]["leader 0.5"]
    assert [arm[key] for key in ("planned", "episodes", "successes", "errors")] == [4, 3, 1, 1]
    assert arm["success_rate"] == 1 / 3
    assert arm["latency_ms"] == pytest.approx({"p50": 35, "p95": 40, "p99": 40})
    assert arm["coded_layers"] == {"cpu": 3}
    assert report["complete"] is False
    assert report["verdict"].startswith(
        "Not all episodes are in yet, so this may change. At rate 0.5"
    )


def test_only_scenes_both_arms_finished_are_paired():
    pair = build_report(small_run(), list(small_records()))["paired"]["leader 0.5"]
    assert [pair[k] for k in ("both", "only_reference", "only_arm", "neither")] == [1, 1, 0, 1]
    assert pair["difference"] == -1 / 3
    assert pair["identical_actions"] == 3
    assert pair["divergence"] == {"mean": 0.25, "n": 4}
    assert pair["motion"]["jerk_m_s3"] == {"ratio": pytest.approx(0.5), "interval95": None, "n": 1}
    assert pair["motion"]["seam_jump"]["difference"] == 0
    assert pair["clustered95"] is None  # of one task


def test_an_arm_is_paired_with_the_dense_one_of_its_delay():
    run = make_run(n_states=2)
    report = build_report(run, make_records(run))
    assert report["paired"]["leader 0.9 +100 ms"]["reference"] == "dense +100 ms"
    assert "With 100 ms of delay on both: " in report["verdict"]
    assert "Each interval is for its arm alone" in report["verdict"]


def test_a_run_that_has_just_begun_says_nothing_and_is_json(tmp_path):
    folder = write_run(tmp_path / "run", make_run(n_states=2), [])
    report = write_report(folder)
    assert json.loads((folder / "report.json").read_text()) == json.loads(json.dumps(report))
    arm, pair = report["arms"]["leader 0.5"], report["paired"]["leader 0.5"]
    unknown = [arm["success_rate"], arm["wilson95"], arm["latency_ms"]["p50"],
               arm["median_episode_s"], arm["motion"]["path_m"], pair["difference"],
               pair["tango95"], pair["always_valid95"], pair["mcnemar_p"], pair["divergence"],
               pair["noninferiority"]["n_needed"], pair["motion"]["path_m"]["ratio"]]  # fmt: skip
    assert unknown == [None] * len(unknown)
    assert "no pair of episodes is finished" in report["verdict"]


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"has no run\.json, so it is no run folder"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("lost", "gained", "same", "verdict"),
    [
        (1, 1, 498, "At rate 0.5 (8.0 bits a weight) the compressed policy is non-inferior to the "
         "dense one within 2 points (n = 500 pairs)."),
        (15, 0, 85, "At rate 0.5 (8.0 bits a weight) it loses 15 points (95 % interval 9.3 to "
         "23.3, n = 100)."),
        (5, 0, 95, "At rate 0.5 (8.0 bits a weight) it loses 5 points (95 % interval 1.1 to 11.2, "
         "n = 100), and whether that is within 2 points is undecided."),
        (0, 0, 20, "At rate 0.5 (8.0 bits a weight) it cannot be told from dense within 2 points "
         "with n = 20 pairs, for which at most about 2800 would be needed if the two are truly "
         "equal."),
        (1, 1, 18, "At rate 0.5 (8.0 bits a weight) it cannot be told from dense within 2 points "
         "with n = 20 pairs, for which about 2000 would be needed if the two are truly equal."),
    ],
)  # fmt: skip
def test_the_verdict_in_words(lost, gained, same, verdict):
    assert outcomes_run(lost, gained, same)["verdict"] == verdict


def test_up_to_names_only_rates_below_the_first_that_is_not_shown():
    report = outcomes_run(1, 1, 498)
    for rate, source in ((0.75, "non-inferior"), (0.8, "undecided"), (0.9, "non-inferior")):
        name = f"leader {rate}"
        report["arms"][name] = {**report["arms"]["leader 0.5"], "rate_requested": rate}
        judged = {"margin": 0.02, "verdict": source, "lower_bound": -0.03, "n_needed": 900}
        report["paired"][name] = {**report["paired"]["leader 0.5"], "noninferiority": judged}
    assert state(report).startswith(
        "Up to rate 0.75 (8.0 bits a weight) the compressed policy is non-inferior to the dense "
        "one within 2 points (n = 500 pairs each); at rate 0.8 (8.0 bits a weight) it cannot be "
        "told from dense within 2 points with n = 500 pairs, for which about 900 would be needed "
        "if the two are truly equal; at rate 0.9"
    )


def test_a_dense_arm_alone_is_stated_with_its_interval():
    run = make_run(n_states=1, rates=[], delays=[0.0])
    assert build_report(run, make_records(run))["verdict"] == (
        "dense: 4 of 4 episodes succeeded, 100.0 % (95 % interval 51.0 to 100.0 %)."
    )


def test_a_sequential_run_is_complete_once_decided_and_judged_by_its_own_interval():
    tasks = [{**small_run()["tasks"][0], "states": list(range(500))}]
    scenes = [Scene("libero_object", 0, i, seed=0) for i in range(150)]
    records = [EpisodeRecord(scene, arm, "success", 100, 5.0)
               for scene in scenes for arm in ("dense", "leader 0.5")]  # fmt: skip
    run = small_run(tasks=tasks, sequential=True, margin=0.05)
    report = build_report(run, records)
    assert report["complete"]
    assert report["paired"]["leader 0.5"]["noninferiority"]["lower_bound"] == pytest.approx(
        report["paired"]["leader 0.5"]["always_valid95"][0]
    )
    assert not build_report({**run, "sequential": False}, records)["complete"]
    assert not build_report(run, records[:100])["complete"]


def test_the_summary_fits_on_the_screen_and_says_what_to_do_next():
    run = make_run(n_states=5, rates=[0.5, 0.9], delays=[0.0])
    records = make_records(run)
    records[0] = dataclasses.replace(records[0], outcome="error", error="RuntimeError: x")
    run["arms"][1]["compression"]["bytes"] = None  # as before its policy is made
    console = Console(width=100, file=io.StringIO())
    print_summary(build_report(run, records), console)
    text = console.file.getvalue()
    assert text.count("\n") < 35
    assert max(map(len, text.splitlines())) <= 100
    assert "(1 error)" in text
    assert "put the bowl on the stove" in text
    assert "the same command with --resume" in " ".join(text.split())
    assert "None" not in text
