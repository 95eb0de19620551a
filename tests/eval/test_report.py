"""The report of a run: counts, pairs, incompleteness; and the log it is made from."""

import json

from rich.console import Console

from einsort_vla.checkpoint import write_results
from envs.protocol import load_protocol
from eval.report import build_report, card_text, print_summary
from eval.rollout import EpisodeRecord, Scene
from eval.schedule import read_log

SCENES = [Scene("libero_object", task, episode, seed=0) for task in (0, 3) for episode in (0, 1)]
DENSE = ["success", "success", "failure", "success"]
COMPRESSED = ["success", "failure", "failure", "error"]


def records():
    for arm, outcomes in (("dense", DENSE), ("compressed", COMPRESSED)):
        for scene, outcome in zip(SCENES, outcomes, strict=True):
            layers = {"cpu": 3} if arm == "compressed" else {}
            yield EpisodeRecord(scene, arm, outcome, 100, 5.0, [30.0, 40.0], layers=layers)


def report():
    arms = ["dense", "compressed"]
    return build_report(list(records()), SCENES, arms, load_protocol(), 0.5, None)


def test_errors_are_not_failures_and_make_the_run_incomplete():
    content = report()
    assert content["arms"]["dense"]["successes"] == 3
    assert content["arms"]["compressed"] | {"wilson95": 0} == {
        "episodes": 3, "successes": 1, "errors": 1, "success_rate": 1 / 3, "wilson95": 0,
        "median_chunk_ms": 35.0, "median_episode_s": 5.0, "coded_layers": {"cpu": 3},
    }  # fmt: skip
    assert content["complete"] is False


def test_only_scenes_both_arms_finished_are_paired():
    paired = report()["paired"]
    assert [paired[k] for k in ("both", "only_dense", "only_compressed", "neither")] == [1, 1, 0, 1]
    assert paired["difference"] == -1 / 3


def test_report_is_json_and_names_protocol_and_tasks():
    content = json.loads(json.dumps(report()))
    assert content["schema"] == 1
    assert content["protocol"]["settle_steps"] == 10
    languages = [task["language"] for task in content["per_task"]]
    assert languages == [
        "pick up the alphabet soup and place it in the basket",
        "pick up the bbq sauce and place it in the basket",
    ]


def test_the_card_has_both_arms_of_each_suite_and_is_replaced(tmp_path):
    (tmp_path / "README.md").write_text("# A policy\n")
    write_results(tmp_path, "| old |")
    text = card_text(report())
    write_results(tmp_path, text)
    assert (tmp_path / "README.md").read_text() == f"# A policy\n\n## Results\n{text}\n"
    assert "| libero_object | 3/4 (30-95 %) | 1/3 (6-79 %) |" in text
    assert "stored, 0 to 1 of each task" in text


def test_summary_fits_on_a_screen_and_says_that_it_is_incomplete():
    console = Console(width=100, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    print_summary(report(), console)
    text = console.export_text()
    assert text.count("\n") < 25
    assert "3/4" in text
    assert "1/3 (1 errors)" in text
    assert "INCOMPLETE" in text


def test_log_survives_a_kill_in_the_middle_of_a_line(tmp_path):
    log = tmp_path / "episodes.jsonl"
    lines = [json.dumps(record.as_dict()) for record in records()]
    log.write_text("\n".join(lines)[:-20])
    kept = read_log(log)
    assert len(kept) == 7
    assert kept == [r for r in records() if r.outcome != "error"]


def test_an_episode_run_again_counts_once(tmp_path):
    log = tmp_path / "episodes.jsonl"
    scene = SCENES[0]
    broken = EpisodeRecord(scene, "dense", "error", 3, 1.0, [], "RuntimeError: x")
    again = EpisodeRecord(scene, "dense", "success", 80, 4.0, [30.0])
    log.write_text("".join(json.dumps(r.as_dict()) + "\n" for r in (broken, again)))
    assert read_log(log) == [again]
