"""The page and Markdown of a text evaluation, of made-up numbers."""

import io
import re
import shutil
import subprocess

import pytest
from msgspec.structs import replace
from rich.console import Console

from einsort_vla.cli.results import Report
from einsort_vla.errors import CheckpointError
from einsort_vla.results.card import card_text
from einsort_vla.results.columns import change_cell, value_cell
from einsort_vla.results.curve import value_curve
from einsort_vla.results.measures import Estimate
from einsort_vla.results.page import joined_page, page_text
from einsort_vla.results.report import read_report, write_report
from einsort_vla.results.sources import read_source, read_sources
from tests.results.made_up_texts import make_report, write_text_run
from tests.results.test_page import CHROMIUM, parse

TABLE = """\
| arm | bits a weight<br>rate achieved | weight file<br>share of dense \
| perplexity<br>95 % interval, lower is better | against dense<br>ratio, 95 % interval \
| accuracy<br>95 % interval, higher is better | against dense<br>difference, 95 % interval |
| --- | --- | --- | --- | --- | --- | --- |
| dense | 16 | 269.06 MB | 17.2<br>16.68 to 17.72<br>60,000 tokens | – \
| 62.0 %<br>58.0 to 66.0 %<br>400 questions | – |
| curve 0.75 | 4.00<br>0.7503 | 107.62 MB<br>40 % | 17.55<br>17.03 to 18.06<br>60,000 tokens \
| × 1.020<br>1.010 to 1.030 \
| 61.7 %<br>57.7 to 65.7 %<br>400 questions | −0.3 points<br>−1.3 to +0.7 |

Perplexity: Bootstrap over windows. Accuracy: Bootstrap over questions.
"""  # noqa: RUF001


def page_of(folder, report):
    return page_text(read_source(write_text_run(folder / "run", report)).report)


def change(report, name, arm, **estimate):
    """The report with another number of one arm."""
    measures = tuple(
        replace(m, arms={**m.arms, arm: replace(m.arms[arm], **estimate)}) if m.name == name else m
        for m in report.measures
    )
    return replace(report, measures=measures)


def test_findings_are_read_as_they_were_written(tmp_path):
    report = make_report("textvqa")
    write_report(report, tmp_path)
    assert read_report(tmp_path) == report


def test_the_command_makes_the_page_of_one_run(tmp_path):
    report = make_report("textvqa", (0.5, 0.75))
    folder = write_text_run(tmp_path / "run", report)
    console = Console(file=io.StringIO(), width=160)
    before = (folder / "report.json").read_bytes()
    assert Report(folder).run(console) == 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    words = " ".join(" ".join(parse(page).text).split())
    for told in ("Up to rate 0.75", *report.compressed, *report.notes, "made up", "5.5.4", "400"):
        assert told in words
    assert (folder / "report.md").read_text(encoding="utf-8") == card_text(report)
    assert (folder / "report.json").read_bytes() == before
    assert report.notes[0] in console.file.getvalue()
    assert not re.search(r"https?:|url\((?!#)|@import|<script|<link", page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_the_markdown_has_each_number_with_interval_and_n():
    text = card_text(make_report(rates=(0.75,)))
    assert text.startswith("**Up to rate 0.75 the model reads as it did. Made up.**")
    assert TABLE in text


def test_an_incomplete_run_says_so(tmp_path):
    report = make_report(complete=False)
    assert "This run is incomplete." in page_of(tmp_path, report)
    assert "INCOMPLETE" in card_text(report)


def test_a_run_without_report_is_refused_with_what_to_do(tmp_path):
    folder = write_text_run(tmp_path / "run", None)
    with pytest.raises(CheckpointError, match=r"found nothing yet \(no report.json\).*--resume"):
        Report(folder).run(Console(file=io.StringIO()))
    assert sorted(path.name for path in folder.iterdir()) == ["run.json"]


def test_the_dense_model_alone_has_a_page_without_curves(tmp_path):
    page = page_of(tmp_path, make_report(rates=()))
    assert "<svg" not in page
    assert "17.2" in page


@pytest.mark.parametrize(
    ("name", "better", "low", "high", "state"),
    [
        ("perplexity", "lower", 1.01, 1.03, "worse"),
        ("perplexity", "lower", 0.97, 0.99, "better"),
        ("perplexity", "lower", 0.99, 1.01, ""),
        ("accuracy", "higher", -0.04, -0.01, "worse"),
        ("accuracy", "higher", 0.01, 0.04, "better"),
        ("accuracy", "higher", -0.01, 0.0, ""),
        ("accuracy", "higher", None, None, ""),
    ],
)
def test_a_change_is_marked_where_its_interval_excludes_none(name, better, low, high, state):
    found = next(m for m in make_report(rates=(0.5,)).measures if m.name == name)
    assert found.better == better
    assert change_cell(found, Estimate(1.0, low, high, 400)).state == state


def test_numbers_without_interval_are_drawn_and_told_as_such(tmp_path):
    report = change(make_report(), "perplexity", "curve 0.5", low=None, high=None)
    page = page_of(tmp_path, report)
    assert "curve 0.5 17.2 (–)" in page  # noqa: RUF001
    assert not re.search(r"\b(None|nan|inf)\b", " ".join(parse(page).text))


def test_an_arm_that_a_measure_lacks_is_a_dash(tmp_path):
    report = make_report(rates=(0.5, 0.9))
    measure = report.measures[0]
    arms = {name: estimate for name, estimate in measure.arms.items() if name != "curve 0.9"}
    short = replace(measure, arms=arms, paired={"curve 0.5": measure.paired["curve 0.5"]})
    assert value_cell(short, "curve 0.9").text == "–"  # noqa: RUF001
    assert page_of(tmp_path, replace(report, measures=(short, *report.measures[1:])))


def test_perplexities_far_apart_are_drawn_on_a_logarithmic_axis():
    report = change(make_report(), "perplexity", "curve 0.9", value=2e5, low=1e5, high=3e5)
    colours = {"curve": 0}
    curve = value_curve(report.measures[0], report.arms, colours)
    near = value_curve(make_report(rates=(0.5,)).measures[0], report.arms, colours)
    assert ">1000<" in curve or ">1e+03<" in curve
    assert ">1000<" not in near


def test_a_number_that_was_measured_on_nothing_is_a_dash(tmp_path):
    nothing = {"value": 0.0, "low": None, "high": None, "n": 0}
    report = change(make_report(), "accuracy", "curve 0.5", **nothing)
    measure = report.measures[1]
    assert value_cell(measure, "curve 0.5").text == "–"  # noqa: RUF001
    assert "curve 0.5" not in value_curve(measure, report.arms, {"curve": 0})
    assert page_of(tmp_path, report)


def test_curves_of_two_runs_on_one_page_share_no_id(tmp_path):
    write_text_run(tmp_path / "one", make_report())
    write_text_run(tmp_path / "two", make_report("textvqa"))
    page = joined_page(read_sources(tmp_path))
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert page.count("<svg") == 3
    assert len(ids) == len(set(ids))


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
@pytest.mark.parametrize("width", [390, 820, 1280])
def test_a_browser_finds_nothing_wider_than_the_window(tmp_path, width):
    """In a frame: Chromium's own window is never narrower than 500 px."""
    write_text_run(tmp_path / "one", make_report())
    write_text_run(tmp_path / "two", make_report("textvqa"))
    probe = "<script>parent.document.title = document.documentElement.scrollWidth</script>"
    page = joined_page(read_sources(tmp_path)) + probe
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(f'<iframe src="report.html" width="{width}" height="900"></iframe>')
    result = subprocess.run(
        [shutil.which("chromium"), "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom",
         "--allow-file-access-from-files", f"--user-data-dir={tmp_path / 'profile'}",
         "--window-size=1400,900", frame.as_uri()],
        capture_output=True, text=True, timeout=100, check=True,
    )  # fmt: skip
    assert int(re.search(r"<title>(\d+)</title>", result.stdout)[1]) <= width
