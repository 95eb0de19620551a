"""A log of JSON lines keeps what is whole, wherever a kill has cut it."""

import json
import re
from typing import Any

import pytest

from einsort_vla.errors import CheckpointError
from einsort_vla.results.closed_loop import make_report
from einsort_vla.results.episode import read_episodes
from einsort_vla.results.log import appending, read_log
from einsort_vla.results.merge import merge_runs
from einsort_vla.results.record import Record
from tests.results.made_up import make_records, make_run, write_run

RECORDS = [{"name": "é\u2028", "n": k, "value": 0.1 * k} for k in range(3)]


@pytest.mark.parametrize("n_lost", [0, 1, 2, 30])
def test_a_log_goes_on_after_a_cut_line(tmp_path, n_lost):
    log = tmp_path / "log.jsonl"
    assert list(read_log(log, dict[str, Any])) == []
    with appending(log) as write:
        write(*RECORDS[:2])
        assert list(read_log(log, dict[str, Any])) == RECORDS[:2]  # kept while it is still open
    log.write_bytes(log.read_bytes()[: len(log.read_bytes()) - n_lost])
    with appending(log) as write:
        write(RECORDS[2])
    whole = RECORDS[:2] if n_lost < 2 else RECORDS[:1]  # without its line's end it is whole, too
    assert list(read_log(log, dict[str, Any])) == [*whole, RECORDS[2]]
    assert log.read_text().count("\n") == len(whole) + 1  # nothing is left of what was cut


@pytest.mark.parametrize("figure", ["NaN", "-Infinity", "1e999", "-1e308"])
def test_figures_that_are_no_numbers_count_as_not_measured(tmp_path, figure):
    run = make_run(n_states=3, rates=[0.5], delays=[0.0])
    folder = write_run(tmp_path / "run", run, make_records(run))
    log = folder / "episodes.jsonl"
    first, *others = log.read_text().splitlines(keepends=True)
    names = ("path_m", "gripper_toggles", "wall_s", "curve 0.5")
    for name in names:
        first = re.sub(rf'("{name}"): [\d.e-]+', rf"\1: {figure}", first)
    log.write_text("".join([first, *others]))
    assert first.count(figure) == len(names)
    record = read_episodes(log)[0]
    assert (record.wall_s, record.divergence) == (None, {})
    assert "path_m" not in record.motion
    assert "jerk_m_s3" in record.motion
    whole = merge_runs([folder], tmp_path / "whole")
    assert whole.closed_loop.arms == make_report(folder).closed_loop.arms
    assert figure not in (tmp_path / "whole" / "episodes.jsonl").read_text()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("garbage", "line 2, is damaged: JSON is malformed"),
        ('{"n": 1', "line 2, is damaged: Input data was truncated"),
        ('"\\ud800"', "line 2, is damaged: Input data was truncated"),
        ("\xff", "line 2, is damaged"),
        ("[" * 100_000, "line 2, is damaged"),
        ('{"n": 1, "speed": 2}', "line 2, is damaged: .* unknown field `speed`.*a newer version"),
        ('{"n": NaN}', "line 2, is damaged: JSON is malformed"),  # counts are always known
        ('{"n": 2, "n": NaN}', "line 2, is damaged: JSON is malformed"),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path, line, message):
    log = tmp_path / "log.jsonl"
    log.write_bytes(f'{{"n": 1}}\n{line}\n{{"n": 3}}\n'.encode("latin-1"))
    with pytest.raises(CheckpointError, match=message) as found:
        list(read_log(log, Count))
    assert len(str(found.value)) < 400
    log.write_bytes(f'{{"n": 1}}\n\n{{"n": 3}}\n{line[:-1]}'.encode("latin-1"))  # cut by a kill
    if line.startswith(("{", "\xff")):  # nothing is left of the second one
        assert list(read_log(log, Count)) == [Count(1), Count(3)]
    else:  # no beginning of a record
        with pytest.raises(CheckpointError, match="line 4, is damaged"):
            list(read_log(log, Count))


class Count(Record, frozen=True):
    n: int


def test_an_episode_ends_once(tmp_path):
    run = make_run(n_states=3, rates=[0.5], delays=[0.0])
    log = write_run(tmp_path / "run", run, make_records(run)) / "episodes.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join([*lines, lines[0]]))  # the same line again does no harm
    records = read_episodes(log)
    assert len(records) == len(lines)
    other = lines[0].replace('"failure"', '"success"')
    if other == lines[0]:
        other = lines[0].replace('"success"', '"failure"')
    log.write_text("".join([*lines, other]))
    with pytest.raises(CheckpointError, match=r"twice: once as .* Take out the line"):
        read_episodes(log)
    log.write_text("".join([other.replace('"failure"', '"error"').replace('"success"', '"error"'),
                            *lines]))  # fmt: skip
    assert len(read_episodes(log)) == len(lines)


@pytest.mark.parametrize("change", [("steps", -5), ("steps", 2**60), ("wall_s", -1.0)])
def test_numbers_that_cannot_be_are_refused(tmp_path, change):
    run = make_run(n_states=1, rates=[0.5], delays=[0.0])
    log = write_run(tmp_path / "run", run, make_records(run)) / "episodes.jsonl"
    content = [json.loads(line) for line in log.read_text().splitlines()]
    content[0][change[0]] = change[1]
    log.write_text("".join(json.dumps(line) + "\n" for line in content))
    with pytest.raises(CheckpointError, match=change[0]):
        read_episodes(log)
