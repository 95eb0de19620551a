"""The page and Markdown of a text evaluation, of made-up numbers."""

import io
import re
import shutil
import subprocess
from dataclasses import replace

import pytest
from rich.console import Console

from einsort_vla.cli.results import Report
from einsort_vla.errors import CheckpointError
from einsort_vla.results.glance import measure_cell
from einsort_vla.results.joined_page import joined_page
from einsort_vla.results.measure_curve import measure_curve
from einsort_vla.results.measures import Estimate, read_findings, write_findings
from einsort_vla.results.sources import read_sources, read_text_run
from einsort_vla.results.text_page import findings_text, text_page
from tests.results.made_up_texts import make_findings, write_text_run
from tests.results.test_page import CHROMIUM, parse

TABLE = """\
| arm | rate | bits a weight | perplexity | 95 % | n | ratio to dense | 95 % |
|---|---|---|---|---|---|---|---|
| dense | – | 16 | 17.2 | 16.68 to 17.72 | 60000 | – | – |
| leader 0.75 | 0.75 | 4.00 | 17.55 | 17.03 to 18.06 | 60000 | × 1.020 | 1.010 to 1.030 |

Perplexity: lower is better; n counts tokens; Bootstrap over windows.
"""  # noqa: RUF001


def page_of(folder, findings):
    return text_page(read_text_run(write_text_run(folder / "run", findings)))


def change(findings, name, arm, **estimate):
    """The findings with another number of one arm."""
    measures = tuple(
        replace(m, arms={**m.arms, arm: replace(m.arms[arm], **estimate)}) if m.name == name else m
        for m in findings.measures
    )
    return replace(findings, measures=measures)


def test_findings_are_read_as_they_were_written(tmp_path):
    findings = make_findings("textvqa")
    write_findings(findings, tmp_path)
    assert read_findings(tmp_path) == findings


def test_the_command_makes_the_page_of_one_run(tmp_path):
    provenance = {"versions": {"transformers": "5.5.4"}, "python": "3.12.1", "git_commit": None}
    findings = make_findings("textvqa", (0.5, 0.75), provenance=provenance)
    folder = write_text_run(tmp_path / "run", findings)
    console = Console(file=io.StringIO(), width=160)
    before = (folder / "report.json").read_bytes()
    assert Report(folder).run(console) == 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    words = " ".join(" ".join(parse(page).text).split())
    for told in ("Up to rate 0.75", *findings.arms, *findings.notes, "made up", "5.5.4", "n = 400"):
        assert told in words
    assert (folder / "report.md").read_text(encoding="utf-8") == findings_text(findings)
    assert (folder / "report.json").read_bytes() == before
    assert findings.notes[0] in console.file.getvalue()
    assert not re.search(r"https?:|url\((?!#)|@import|<script|<link", page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_the_markdown_has_each_number_with_interval_and_n():
    text = findings_text(make_findings(rates=(0.75,)))
    assert text.startswith("**Up to rate 0.75 the model reads as it did. Made up.**")
    assert TABLE in text


def test_an_incomplete_run_says_so(tmp_path):
    findings = make_findings(complete=False)
    assert "This run is incomplete." in page_of(tmp_path, findings)
    assert "INCOMPLETE" in findings_text(findings)


def test_a_run_without_report_is_refused_with_what_to_do(tmp_path):
    folder = write_text_run(tmp_path / "run", None)
    with pytest.raises(CheckpointError, match=r"found nothing yet \(no report.json\).*--resume"):
        Report(folder).run(Console(file=io.StringIO()))
    assert sorted(path.name for path in folder.iterdir()) == ["run.json"]


def test_the_dense_model_alone_has_a_page_without_curves(tmp_path):
    page = page_of(tmp_path, make_findings(rates=()))
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
    found = next(m for m in make_findings(rates=(0.5,)).measures if m.name == name)
    assert found.better == better
    measure = replace(found, paired={"leader 0.5": Estimate(1.0, low, high, 400)})
    assert measure_cell(measure, "leader 0.5").state == state


def test_numbers_without_interval_are_drawn_and_told_as_such(tmp_path):
    findings = change(make_findings(), "perplexity", "leader 0.5", low=None, high=None)
    page = page_of(tmp_path, findings)
    assert "leader 0.5 17.2 (–)" in page  # noqa: RUF001
    assert not re.search(r"\b(None|nan|inf)\b", " ".join(parse(page).text))


def test_an_arm_that_a_measure_lacks_is_a_dash(tmp_path):
    findings = make_findings(rates=(0.5, 0.9))
    measure = findings.measures[0]
    arms = {name: estimate for name, estimate in measure.arms.items() if name != "leader 0.9"}
    short = replace(measure, arms=arms, paired={"leader 0.5": measure.paired["leader 0.5"]})
    assert measure_cell(short, "leader 0.9").text == "–"  # noqa: RUF001
    assert page_of(tmp_path, replace(findings, measures=(short, *findings.measures[1:])))


def test_perplexities_far_apart_are_drawn_on_a_logarithmic_axis():
    findings = change(make_findings(), "perplexity", "leader 0.9", value=2e5, low=1e5, high=3e5)
    colours = {"leader": 0}
    curve = measure_curve(findings.measures[0], findings.arms, colours)
    near = measure_curve(make_findings(rates=(0.5,)).measures[0], findings.arms, colours)
    assert ">1000<" in curve or ">1e+03<" in curve
    assert ">1000<" not in near


def test_a_number_that_was_measured_on_nothing_is_a_dash(tmp_path):
    nothing = {"value": 0.0, "low": None, "high": None, "n": 0}
    findings = change(make_findings(), "accuracy", "leader 0.5", **nothing)
    measure = findings.measures[1]
    assert measure_cell(measure, "leader 0.5").text == "–"  # noqa: RUF001
    assert "leader 0.5" not in measure_curve(measure, findings.arms, {"leader": 0})
    assert page_of(tmp_path, findings)


def test_curves_of_two_runs_on_one_page_share_no_id(tmp_path):
    write_text_run(tmp_path / "one", make_findings())
    write_text_run(tmp_path / "two", make_findings("textvqa"))
    page = joined_page(read_sources(tmp_path))
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert page.count("<svg") == 3
    assert len(ids) == len(set(ids))


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
@pytest.mark.parametrize("width", [390, 820, 1280])
def test_a_browser_finds_nothing_wider_than_the_window(tmp_path, width):
    """In a frame: Chromium's own window is never narrower than 500 px."""
    write_text_run(tmp_path / "one", make_findings())
    write_text_run(tmp_path / "two", make_findings("textvqa"))
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
