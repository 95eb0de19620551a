"""All results of a folder of runs on one page; of made-up runs."""

import io
import json
import re
import shutil

import pytest
from msgspec.structs import replace
from rich.console import Console

from einsort_vla.cli.results import Report
from einsort_vla.cli.run import INCOMPLETE
from einsort_vla.errors import CheckpointError, EinSortError, UsageError
from einsort_vla.results.joined import check_joinable
from einsort_vla.results.page import joined_page
from einsort_vla.results.sources import read_sources
from tests.results.made_up import change_design, make_records, make_run, write_run
from tests.results.made_up_texts import (
    MODEL,
    POLICY_SHA256,
    keep_policies,
    make_report,
    write_receipt,
    write_text_run,
)
from tests.results.test_page import parse

WRITTEN = ("report.json", "report.html", "report.md")


def write_loop(folder, n_records=None, rates=(0.5, 0.9), **changes):
    run = replace(make_run(3, rates, (0.0,)), **changes)
    return write_run(folder, run, make_records(run)[:n_records])


@pytest.fixture
def folder(tmp_path):
    """A policy in closed loop, another model on texts, a receipt of the first compressed arm."""
    keep_policies(write_loop(tmp_path / "robot"), {"curve-0.5": "11" * 32})
    write_text_run(tmp_path / "language", make_report(rates=(0.5, 0.75)))
    write_text_run(tmp_path / "pictures", make_report("textvqa", (0.5,)))
    write_receipt(tmp_path / "bundle", "11" * 32)
    return tmp_path


def run_report(folder, card=None):
    console = Console(file=io.StringIO(), width=200)
    code = Report(folder, card).run(console)
    return code, console.file.getvalue()


def words_of(text):
    return " ".join(" ".join(parse(text).text).split())


def refuse(folder, error=UsageError):
    """The message that the command gives; it has written nothing."""
    with pytest.raises(error) as caught:
        run_report(folder)
    assert not any((folder / name).exists() for name in WRITTEN)
    return str(caught.value)


def test_the_command_joins_a_folder_and_can_be_repeated(folder):
    code, printed = run_report(folder)
    assert code == 0
    assert all(name in printed for name in ("curve 0.75", "perplexity", "report.html"))
    first = {name: (folder / name).read_bytes() for name in WRITTEN}
    assert run_report(folder) == (code, printed)
    assert {name: (folder / name).read_bytes() for name in WRITTEN} == first
    report = json.loads(first["report.json"])
    assert report["kind"] == "joined"
    assert {name: arm["runs"] for name, arm in report["arms"].items()} == {
        "dense": ["robot", "language", "pictures"],
        "curve 0.5": ["robot", "language", "pictures"],
        "curve 0.75": ["language"],
        "curve 0.9": ["robot"],
    }


def test_the_page_has_every_verdict_arm_model_and_note_and_needs_nothing(folder):
    sources = read_sources(folder)
    page = joined_page(sources)
    words = words_of(page)
    for text in sources.texts:
        report = text.report
        assert all(told in words for told in (*report.compressed, *report.notes))
        assert all(part in words for part in re.split(r"(?<=\.) (?=[A-Z])", report.verdict))
    assert all(arm.name in words for arm in sources.loops[0].arms)
    assert f"{MODEL}, another model than the policy" in words
    assert "incomplete" not in words.lower()
    assert not re.search(r"https?:|url\((?!#)|@import|<script|<link", page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert not re.search(r"\b(None|nan|inf|Undefined)\b", words)


def test_numbers_of_two_models_stand_in_two_tables(folder):
    page = joined_page(read_sources(folder))
    tables = re.findall(r'aria-label="Every arm of ([^"]+)".*?</table>', page, re.DOTALL)
    assert tables == ["made-up", MODEL]
    first, second = (re.search(f'aria-label="Every arm of {name}".*?</table>', page, re.DOTALL)[0]
                     for name in tables)  # fmt: skip
    assert "perplexity" not in first
    assert "perplexity" in second
    assert "success" not in second


def test_a_text_run_of_the_policy_itself_is_in_its_table(folder):
    report = make_report("language", (0.5,))
    write_text_run(folder / "backbone", report, "made-up", sha256=POLICY_SHA256)
    page = joined_page(read_sources(folder))
    table = re.search(r'aria-label="Every arm of made-up".*?</table>', page, re.DOTALL)[0]
    assert "success" in table
    assert "perplexity" in table


def test_a_receipt_is_of_the_arm_whose_weights_it_names(folder):
    write_receipt(folder / "other-bundle", "33" * 32)
    write_receipt(folder / "lost", None)
    write_receipt(folder / "moved", None, source={"weights_sha256": "11" * 32})
    run_report(folder)
    page = words_of((folder / "report.html").read_text(encoding="utf-8"))
    latency = page[page.index("Latency Milliseconds") :]
    rows = re.findall(r"(unknown|curve 0\.5|dense)[^|]*?(?=unknown|curve|dense|How it)", latency)
    assert rows.count("unknown") == 2
    assert rows.count("curve 0.5") == 3  # in closed loop and by two receipts
    at_a_glance = page[: page.index("Latency Milliseconds")]
    assert at_a_glance.count("Jetson AGX Orin") == 2  # two timings of one arm are not averaged


def test_two_policies_are_refused_by_name(folder):
    write_loop(folder / "second", model="hub/other", inputs_sha256={"policy": "ef" * 32})
    message = refuse(folder)
    assert "robot is of the policy made-up (abababababab)" in message
    assert "second of other (efefefefefef)" in message


def test_two_closed_loops_may_not_disagree_on_an_episode(folder):
    shutil.copytree(folder / "robot", folder / "copy")
    check_joinable(read_sources(folder))
    log = folder / "copy" / "episodes.jsonl"
    text = log.read_text()
    log.write_text(text.replace('"outcome": "success"', '"outcome": "failure"', 1))
    message = refuse(folder)
    assert "copy and robot disagree: libero_" in message
    assert "is a failure in one, a success in the other" in message
    run = json.loads((folder / "copy" / "run.json").read_text())
    run["design"]["protocol"]["settle_steps"] = 0  # another protocol: both stand, each by itself
    (folder / "copy" / "run.json").write_text(json.dumps(run))
    assert run_report(folder)[0] == 0


@pytest.mark.parametrize("change", ["same", "other protocol", "other model", "incomplete"])
def test_two_text_runs_may_not_disagree_on_a_number(folder, change):
    other = make_report(rates=(0.9,), **({"complete": False} if change == "incomplete" else {}))
    report = make_report(rates=(0.5, 0.75))
    measures = tuple(
        replace(m, arms={**m.arms, "dense": o.arms["curve 0.9"]})
        for m, o in zip(report.measures, other.measures, strict=True)
    )
    protocol = {"data": "another"} if change == "other protocol" else report.protocol
    sha256 = {"sha256": "99" * 32} if change == "other model" else {}
    changed = replace(report, measures=measures, protocol=protocol, complete=change != "incomplete")
    write_text_run(folder / "second", changed, **sha256)
    if change == "same":
        message = refuse(folder)
        assert "language and second disagree: perplexity of arm 'dense' is 17.2" in message
        assert "77.0" in message
    else:
        assert run_report(folder)[0] == (INCOMPLETE if change == "incomplete" else 0)


def test_incomplete_runs_are_shown_as_such(folder):
    write_loop(folder / "half", n_records=5, rates=(0.5,))
    write_text_run(folder / "begun", None)
    write_text_run(folder / "partly", make_report("textvqa", (0.75,), complete=False))
    code, printed = run_report(folder)
    assert code == INCOMPLETE
    assert "INCOMPLETE: half, begun, partly" in printed
    words = words_of((folder / "report.html").read_text(encoding="utf-8"))
    assert "Incomplete: half, begun, partly." in words
    assert "5 of 24 planned episodes" in words
    assert "No results yet:" in words
    assert "INCOMPLETE: half, begun, partly." in (folder / "report.md").read_text(encoding="utf-8")
    assert json.loads((folder / "report.json").read_text())["complete"] is False


def test_a_run_whose_policies_are_not_made_yet_has_no_sizes(tmp_path):
    run = make_run(1, (0.5,), (0.0,))
    arms = tuple(replace(arm, weight_bytes=None) for arm in run.design.arms)
    run = change_design(run, arms=arms)
    write_run(tmp_path / "top" / "run", run, [])
    assert run_report(tmp_path / "top")[0] == INCOMPLETE
    assert run_report(tmp_path / "top" / "run")[0] == INCOMPLETE


def test_what_is_no_result_is_named(folder):
    (folder / "models").mkdir()
    (folder / "notes.txt").write_text("mine")
    printed = run_report(folder)[1]
    assert "In the folder, but no results: models, notes.txt." in printed


def _empty(folder):
    (folder / "models").mkdir(parents=True)


def _unknown_kind(folder):
    write_text_run(folder / "run", make_report("poetry"))


def _foreign(folder):
    _empty(folder)
    (folder / "models" / "report.json").write_text('{"score": 1}')


def _newer(folder, schema=7):
    path = write_text_run(folder / "run", make_report()) / "report.json"
    path.write_text(path.read_text().replace('"schema": 4', f'"schema": {schema}'))


def _older(folder):
    _newer(folder, schema=3)


def _damaged(folder):
    (write_text_run(folder / "run", make_report()) / "report.json").write_text("{")


def _no_receipt(folder):
    write_receipt(folder / "bundle", "11" * 32).write_text("{}")


def _log_alone(folder):
    (write_loop(folder / "run") / "run.json").unlink()


def _strange_run(folder):
    path = write_loop(folder / "run") / "run.json"
    path.write_text('{"schema": 1, "model": "x"}')


def _strange_number(folder):
    path = write_text_run(folder / "run", make_report()) / "report.json"
    path.write_text(path.read_text().replace('"n": 60000', '"n": "60000"', 1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_empty, "holds no results: no folder in it has a run.json or report.json"),
        (_unknown_kind, "is a run of an unknown kind, 'poetry'; known are closed_loop, textvqa"),
        (_foreign, "models/report.json has no schema; this version reads 4"),
        (
            _newer,
            "a newer version of einsort-vla (its schema is 7; this version reads 4). Use that",
        ),
        (
            _older,
            "an older version of einsort-vla (its schema is 3; this version reads 4). Run the",
        ),
        (_damaged, "report.json is damaged: Input data was truncated. Run the evaluation again."),
        (_no_receipt, "bench-tensorrt.json is no receipt of `einsort-vla bench`"),
        (_log_alone, "has no run.json"),
        (
            _strange_run,
            "run.json is damaged: Object missing required field `kind`. Run the evaluation again.",
        ),
        (
            _strange_number,
            "report.json is damaged: Expected `int`, got `str` - at `$.measures[0].arms[...].n`.",
        ),
    ],
)
def test_bad_folders_are_refused_with_the_reason(tmp_path, make, message):
    make(tmp_path / "top")
    assert message in refuse(tmp_path / "top", EinSortError)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="nowhere is no folder"):
        run_report(tmp_path / "nowhere")


def test_text_from_outside_is_escaped(tmp_path):
    hostile = "<script>alert('x')</script><b title=\""
    write_text_run(
        tmp_path / "run",
        make_report(verdict=hostile, notes=(hostile,), protocol={"data": hostile}),
        model=hostile,
    )
    for folder in (tmp_path, tmp_path / "run"):
        run_report(folder)
        text = (folder / "report.html").read_text(encoding="utf-8")
        parse(text)
        assert "<script>" not in text
        assert "&lt;script&gt;" in text


def test_an_unreadable_receipt_is_named(tmp_path):
    _empty(tmp_path / "top")
    (tmp_path / "top" / "orin.json").write_text("{")
    with pytest.raises(
        CheckpointError, match=r"orin.json is damaged: Input data was truncated. Measure"
    ):
        run_report(tmp_path / "top")
