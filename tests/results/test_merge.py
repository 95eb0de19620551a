"""Shards of one evaluation make the whole; what does not belong together is refused."""

import io

import pytest
import tyro
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from rich.console import Console

from einsort_vla.cli.commands import COMMANDS
from einsort_vla.cli.results import Merge
from einsort_vla.errors import CheckpointError, UsageError
from einsort_vla.results.closed_loop import build_report
from einsort_vla.results.episode import read_episodes
from einsort_vla.results.merge import join_episodes, join_runs, merge_runs
from einsort_vla.results.run import read_run
from tests.results.made_up import change_design, make_records, make_run, write_run

RUN = make_run(n_states=6, rates=[0.5, 0.9], delays=[0.0])
RECORDS = make_records(RUN)


def shard(states):
    """The part of the run with these states of each task."""
    tasks = tuple(replace(task, states=tuple(sorted(states))) for task in RUN.design.tasks)
    return change_design(RUN, tasks=tasks), [r for r in RECORDS if r.scene.episode in states]


@settings(max_examples=20, deadline=None)
@given(st.sets(st.integers(0, 5)), st.sets(st.integers(0, 5)))
def test_shards_however_cut_are_the_whole(first, second):
    second |= set(range(6)) - first
    shards = {"a": shard(first), "b": shard(second)}
    joined = join_runs({folder: run for folder, (run, _) in shards.items()})
    records = join_episodes({folder: records for folder, (_, records) in shards.items()})
    assert joined.design.tasks == tuple(sorted(RUN.design.tasks, key=lambda task: task.key))
    assert sorted(records, key=repr) == sorted(RECORDS, key=repr)


def test_the_merged_folder_is_that_of_one_run(tmp_path):
    folders = [write_run(tmp_path / name, *shard(states))
               for name, states in (("a", {0, 1, 2}), ("b", {2, 3, 4, 5}))]  # fmt: skip
    (folders[0] / "videos").mkdir()
    (folders[0] / "videos" / "0.mp4").write_bytes(b"film")
    report = merge_runs(folders, tmp_path / "whole")
    records = read_episodes(tmp_path / "whole" / "episodes.jsonl")
    whole = build_report(read_run(tmp_path / "whole"), records)
    assert report == whole
    assert report.complete
    assert len(records) == len(RECORDS)
    assert report.closed_loop.arms == build_report(RUN, RECORDS).closed_loop.arms
    assert (tmp_path / "whole" / "videos" / "0.mp4").read_bytes() == b"film"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            replace(RUN, inputs_sha256={"policy": "cd"}),
            "inputs_sha256.policy is 'abab.*' in one, 'cd' in",
        ),
        (
            change_design(RUN, margin=0.05),
            r"margin is 0\.02 in one, 0\.05 in the other\. Merge only runs",
        ),
        (
            change_design(RUN, protocol={**RUN.design.protocol, "settle_steps": 5}),
            r"protocol\.settle_steps is 10",
        ),
        (
            replace(RUN, versions={**RUN.versions, "torch": "2.10.0"}),
            r"versions\.torch is '2\.11\.0'",
        ),
        (change_design(RUN, arms=RUN.design.arms[:2]), "arm names is .*'curve 0.9'.* in one"),
        (
            change_design(RUN, arms=tuple(replace(a, codec="scalar") for a in RUN.design.arms)),
            r"arms\.dense\.codec is",
        ),
        (
            change_design(RUN, scenes=replace(RUN.design.scenes, displacement_m=0.03)),
            r"scenes\.displacement_m is 0\.0",
        ),
    ],
)
def test_other_evaluations_are_refused_with_what_differs(other, message):
    with pytest.raises(UsageError, match=message) as found:
        join_runs({"here": RUN, "there": other})
    assert str(found.value).startswith("here and there are not shards of one evaluation: ")


def test_machines_and_commits_may_differ_and_are_listed():
    joined = join_runs({"a": RUN, "b": replace(RUN, machine="arm64"), "c": RUN})
    assert joined.machine == "x86_64, made-up processor, arm64"


@pytest.mark.parametrize(
    "change", [{"outcome": "failure"}, {"actions_sha256": "other"}], ids=["outcome", "actions"]
)
def test_an_episode_that_ended_in_two_ways_is_refused(change):
    known = next(record for record in RECORDS if record.is_success)
    with pytest.raises(UsageError, match=r"task \d episode \d of arm .* has .* in a and .* in b"):
        join_episodes({"a": [known], "b": [replace(known, **change)]})


def test_an_error_gives_way_to_the_finished_episode():
    done = RECORDS[0]
    broken = replace(done, outcome="error", actions_sha256="")
    assert join_episodes({"a": [broken], "b": [done]}) == [done]
    assert join_episodes({"a": [done], "b": [broken]}) == [done]
    assert join_episodes({"a": [broken], "b": [broken]}) == [broken]


def test_the_command_joins_and_never_writes_over_a_folder(tmp_path):
    a, b = (write_run(tmp_path / name, *shard({0, 1, 2})) for name in ("a", "b"))
    arguments = ["merge", str(a), str(b), "--output", str(tmp_path / "whole")]
    command = tyro.cli(COMMANDS, args=arguments)
    assert command == Merge((a, b), tmp_path / "whole")
    console = Console(width=100, file=io.StringIO())
    assert command.run(console) == 0
    assert "whole/report.html" in console.file.getvalue()
    assert (tmp_path / "whole" / "report.md").exists()
    with pytest.raises(CheckpointError, match="whole exists already"):
        command.run(console)


def test_what_cannot_be_merged_is_refused_and_nothing_is_written(tmp_path):
    a, b = (write_run(tmp_path / name, *shard({k})) for k, name in enumerate("ab"))
    (tmp_path / "link").symlink_to(a)
    newer = (b / "run.json").read_text().replace('"schema": 1', '"schema": 2')
    for folders, output, message in (
        ([], "whole", "nothing to merge. Name two run folders"),
        ([a, b, tmp_path / "b" / ".." / "b"], "whole", "b is named twice"),
        ([a, tmp_path / "link"], "whole", "link is named twice"),
        ([a, b], "a/whole", "whole lies in .*a, which is read; write elsewhere"),
    ):
        with pytest.raises(UsageError, match=message):
            merge_runs(folders, tmp_path / output)
    (b / "run.json").write_text(newer)
    with pytest.raises(CheckpointError, match=r"b/run.json was written by a newer version"):
        merge_runs([a, b], tmp_path / "new" / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "link"]
    assert sorted(path.name for path in a.iterdir()) == ["episodes.jsonl", "run.json"]


def test_a_link_among_videos_leads_nowhere(tmp_path):
    a = write_run(tmp_path / "a", *shard({0}))
    (a / "videos").mkdir()
    (tmp_path / "secret").write_text("secret")
    (a / "videos" / "x.mp4").symlink_to(tmp_path / "secret")
    merge_runs([a], tmp_path / "whole")
    assert not (tmp_path / "whole" / "videos").exists()
