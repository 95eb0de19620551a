"""The page, its curves and videos, and the text for a model card, of made-up runs."""

import copy
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from rich.console import Console

from einsort_vla.cli.results import Report
from einsort_vla.cli.run import INCOMPLETE
from einsort_vla.errors import UsageError
from einsort_vla.results.card import card_text
from einsort_vla.results.curve import delay_curve, difference_curve, success_curve
from einsort_vla.results.motion import motion_changes
from einsort_vla.results.page import command_of, page_text, write_page
from einsort_vla.results.report import build_report
from einsort_vla.results.videos import MAX_BYTES, choose_films
from tests.results.made_up import make_records, make_run, write_run

VOID = {"meta", "br", "link", "img", "input", "hr", "source"}
CARD = """
| arm | rate | bits a weight | weight file | n | success | 95 % \
| difference to dense, points | 95 % | pairs | verdict | jerk to dense |
|---|---|---|---|---|---|---|---|---|---|---|---|
| dense | – | 16 | – | 12 | 11/12, 91.7 % | 64.6 to 98.5 % | – | – | – | – | – |
| leader 0.9 | 0.9 (reached 0.9004) | 1.60 | 2.26 MB of 16.03 MB | 12 | 8/12, 66.7 % \
| 39.1 to 86.2 % | −25.0 | −53.2 to +5.3 | 12 | undecided | × 1.30 (1.20 to 1.40) |

Closed loop on LIBERO (libero_object, libero_goal; 4 tasks), protocol lerobot, stored initial \
states, margin 2 points. 95 % intervals: Wilson for success, Tango for the difference over pairs \
of episodes from the same start.

Motion of leader 0.9 against dense: path × 1.20 (1.10 to 1.30), \
jerk × 1.30 (1.20 to 1.40), duration × 1.20 (1.10 to 1.30).
"""  # noqa: RUF001
CHROMIUM = shutil.which("chromium")


def make_report(n_states=3, rates=(0.5, 0.9), delays=(0.0, 100.0), n_records=None, **changes):
    run = {**make_run(n_states, rates, delays), **changes}
    return build_report(run, make_records(run)[:n_records])


@pytest.fixture(scope="module")
def made():
    return make_report()


@pytest.fixture
def report(made):
    return copy.deepcopy(made)


@pytest.fixture(scope="module")
def page(made):
    return page_text(made)


class Balance(HTMLParser):
    """Fails at the first end tag that does not close the innermost open element."""

    def __init__(self):
        super().__init__()
        self.open = []
        self.addresses = []
        self.text = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.addresses += [value for key, value in attrs if key in ("src", "href", "xlink:href")]

    def handle_startendtag(self, tag, attrs):
        self.addresses += [value for key, value in attrs if key in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data):
        self.text.append(data)


def parse(text):
    parser = Balance()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    return parser


def test_the_page_is_html_that_needs_nothing_but_itself(page):
    assert all(address.startswith("#") for address in parse(page).addresses)
    assert not re.search(r"https?:|url\((?!#)|@import|<script|<link", page)
    assert len(page.encode()) < 1_000_000


def test_the_page_has_the_verdict_and_every_arm_and_task(report, page):
    words = " ".join(" ".join(parse(page).text).split())
    for told in [*re.split(r"(?<=\.) (?=[A-Z])", report["verdict"]), *report["arms"]]:
        assert told in words
    for task in report["per_task"]:
        assert task["language"] in words
    assert "incomplete" not in words


def test_the_same_report_gives_the_same_bytes(report, page):
    assert page_text(report) == page


def test_no_two_elements_share_an_id(page):
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_text_from_outside_is_escaped():
    hostile = "<script>alert('x')</script><b title=\""
    run = make_run(3, (0.5,), (0.0,))
    run["tasks"][0]["language"] = run["policy"] = run["machine"] = hostile
    run["config"]["note"] = run["protocol"]["note"] = hostile
    for arm in run["arms"]:
        arm["codec"] = arm["codec"] and hostile
    text = page_text(build_report(run, make_records(run)))
    parse(text)
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


@pytest.mark.parametrize("n_records", [0, 7])
def test_runs_that_have_hardly_begun(n_records):
    report = make_report(n_records=n_records)
    words = " ".join(parse(page_text(report)).text)
    assert "This run is incomplete." in words
    assert f"{n_records} of 72 planned episodes" in words
    assert card_text(report)
    assert not re.search(r"\b(None|nan|inf)\b", words)


def test_a_run_of_the_dense_policy_alone():
    report = make_report(n_states=1, rates=(), delays=(0.0,))
    assert [curve(report) for curve in (success_curve, difference_curve, delay_curve)] == [None] * 3
    assert "dense" in " ".join(parse(page_text(report)).text)
    assert "| dense | – | 16 |" in card_text(report)  # noqa: RUF001


def test_delays_have_a_curve_only_where_they_differ(report):
    assert "dense +100 ms" in delay_curve(report)
    assert "+100 ms" not in success_curve(report)
    for arm in report["arms"].values():
        arm["delay_ms"] = 100.0
    assert delay_curve(report) is None


def test_curves_take_their_colours_from_the_page(report):
    for curve in (success_curve, difference_curve, delay_curve):
        assert "var(--series-0)" in curve(report)
        assert "#0102" not in curve(report)


def test_differences_far_below_the_margin_are_arrows(report):
    assert "\N{MINUS SIGN}64<" not in difference_curve(report)
    report["paired"]["leader 0.9"] |= {"difference": -0.64, "tango95": [-0.7, -0.5]}
    assert "\N{MINUS SIGN}64<" in difference_curve(report)


def test_motion_is_marked_where_its_interval_excludes_no_change(report):
    motion = report["paired"]["leader 0.5"]["motion"]
    motion["jerk_m_s3"] = {"ratio": 1.2, "interval95": [1.1, 1.3], "n": 9}
    motion["seam_jump"] = {"difference": -0.2, "interval95": [-0.4, 0.1], "n": 9}
    motion["path_m"] = {"ratio": None, "interval95": None, "n": 0}
    changes = {metric.key: found["leader 0.5"] for metric, found in motion_changes(report)}
    jerk, seam = changes["jerk_m_s3"], changes["seam_jump"]
    assert (jerk.text, jerk.interval, jerk.direction) == (
        "\N{MULTIPLICATION SIGN} 1.20", "1.10 to 1.30", "more",
    )  # fmt: skip
    assert 50 < jerk.places[0] < jerk.places[1] < jerk.places[2] <= 100
    assert (seam.direction, seam.places) == ("", [0.0, 25.0, 62.5])
    assert changes["path_m"] is None


def test_the_command_can_be_typed_again():
    config = {"rate": 0.0, "codec": "leader window=10", "tasks": [0, 3], "video": True,
              "wrong_pictures": False, "calibrate": None}  # fmt: skip
    assert command_of(config) == (
        "python eval/libero.py --rate 0.0 --codec 'leader window=10' --tasks 0 3 --video"
    )


def film(folder, run, records, n_bytes=1000):
    """A run folder with a file for each pair of the arms."""
    write_run(folder, run, records)
    (folder / "videos").mkdir()
    for arm in run["arms"]:
        for scene in {record.scene for record in records} if arm["reference"] else ():
            stem = f"{scene.suite}_task{scene.task_id}_episode{scene.episode}"
            name = f"{stem}_{arm['name'].replace(' ', '-')}.mp4"
            (folder / "videos" / name).write_bytes(bytes(n_bytes))
    return build_report(run, records)


def test_the_only_compressed_arm_may_be_missing_in_the_names_of_videos(tmp_path):
    run = make_run(4, (0.9,), (0.0,))
    report = film(tmp_path / "run", run, make_records(run))
    films = choose_films(report, tmp_path / "run")
    for path in (tmp_path / "run" / "videos").iterdir():
        path.rename(path.with_name(path.name.replace("_leader-0.9", "")))
    assert [film.scene for film in choose_films(report, tmp_path / "run")] == [
        film.scene for film in films
    ]


@pytest.mark.parametrize("rates", [(0.9,), (0.5, 0.9)])
def test_one_video_that_both_solve_and_one_that_tells_them_apart(tmp_path, rates):
    run = make_run(10, rates, (0.0,))
    records = make_records(run)
    report = film(tmp_path / "run", run, records)
    both, apart = films = choose_films(report, tmp_path / "run")
    outcomes = {(record.scene, record.arm): record.outcome for record in records}
    assert (both.kind, apart.kind) == ("both", "only dense")
    assert outcomes[both.scene, both.arm] == outcomes[both.scene, "dense"] == "success"
    assert outcomes[apart.scene, apart.arm] == "failure"
    assert outcomes[apart.scene, "dense"] == "success"
    text = write_page(report, tmp_path / "run").read_text(encoding="utf-8")
    assert text.count("data:video/mp4;base64,") == len(films)
    assert apart.language in text


def test_videos_too_large_for_the_page_are_passed_over(tmp_path):
    run = make_run(4, (0.9,), (0.0,))
    report = film(tmp_path / "run", run, make_records(run), n_bytes=MAX_BYTES)
    assert choose_films(report, tmp_path / "run") == []


def test_the_command_writes_all_reports_of_a_run(tmp_path):
    run = make_run(2, (0.5,), (0.0,))
    folder = write_run(tmp_path / "run", run, make_records(run)[:-1])
    console = Console(file=io.StringIO())
    assert Report(folder).run(console) == INCOMPLETE
    assert "--video" in (folder / "report.html").read_text(encoding="utf-8")
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert text == card_text(json.loads((folder / "report.json").read_text()))
    assert "report.html" in console.file.getvalue()


def test_the_card_of_one_arm(report):
    pair = report["paired"]["leader 0.9"]
    for metric, change in pair["motion"].items():
        nothing = {**dict.fromkeys(change), "n": 0}
        known = {"ratio": 1.2, "interval95": [1.1, 1.3], "n": 6}
        pair["motion"][metric] = known if metric in ("path_m", "duration_s") else nothing
    pair["motion"]["jerk_m_s3"] = {"ratio": 1.3, "interval95": [1.2, 1.4], "n": 6}
    verdict, rest = card_text(report, "leader 0.9").split("\n", 1)
    assert verdict.startswith("**At rate 0.9 (1.6 bits a weight)")
    assert "0.5" not in verdict
    assert rest == CARD
    assert "leader 0.5" in card_text(report)
    with pytest.raises(UsageError, match=r"unknown compressed arm 'leader 0.8'. Did you mean"):
        card_text(report, "leader 0.8")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
@pytest.mark.parametrize("width", [500, 1280])
def test_a_browser_finds_nothing_wider_than_the_window(page, tmp_path, width):
    file = tmp_path / "report.html"
    probe = "<script>document.title = document.documentElement.scrollWidth</script>"
    file.write_text(page + probe, encoding="utf-8")
    result = subprocess.run(
        [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom",
         f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900", file.as_uri()],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert int(re.search(r"<title>(\d+)</title>", result.stdout)[1]) <= width
