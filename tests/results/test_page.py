"""The page, its curves and videos, and the text for a model card, of made-up runs."""

import io
import re
import shlex
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
import tyro
from msgspec.structs import replace
from rich.console import Console

from einsort_vla.cli.results import Report
from einsort_vla.cli.run import INCOMPLETE
from einsort_vla.errors import UsageError
from einsort_vla.results import motion
from einsort_vla.results.arms import undelayed
from einsort_vla.results.card import card_text
from einsort_vla.results.changes import motion_changes
from einsort_vla.results.closed_loop import build_report
from einsort_vla.results.curve import change_curve, delay_curve, figures_of
from einsort_vla.results.measures import Estimate
from einsort_vla.results.page import command_of, page_text, write_pages
from einsort_vla.results.report import Percentiles, read_report
from einsort_vla.results.summary import print_report
from einsort_vla.results.videos import MAX_BYTES, choose_films
from eval.closed_loop.settings import ClosedLoopSettings
from eval.run.output import comparable
from tests.results.made_up import change_design, make_records, make_run, write_run

VOID = {"meta", "br", "link", "img", "input", "hr", "source"}
CARD = """
| arm | bits a weight<br>rate achieved | weight file<br>share of dense \
| success<br>95 % interval, higher is better \
| against dense<br>difference, 95 % interval, margin 2 points \
| jerk<br>ratio to dense, 95 % interval | a chunk, ms<br>median; p95 / p99 |
| --- | --- | --- | --- | --- | --- | --- |
| dense | 16 | 16.03 MB | 91.7 %<br>64.6 to 98.5 %<br>12 episodes | – | – | 40.0<br>50.0 / 60.0 |
| curve 0.9 | 1.60<br>0.9004 | 2.26 MB<br>14 % | 66.7 %<br>39.1 to 86.2 %<br>12 episodes \
| −25.0 points<br>−53.2 to +5.3<br>undecided | × 1.30<br>1.20 to 1.40 | 40.0<br>50.0 / 60.0 |

Closed loop in a made-up world (libero_object, libero_goal; 4 tasks), protocol lerobot, stored \
initial states, margin 2 points. Success: Wilson's interval for the success of each arm. Tango's \
interval for the difference, over pairs of episodes from the same start.

Motion of curve 0.9 against dense: path × 1.20 (1.10 to 1.30), \
jerk × 1.30 (1.20 to 1.40), duration × 1.20 (1.10 to 1.30).
"""  # noqa: RUF001
CHROMIUM = shutil.which("chromium")


def make_report(n_states=3, rates=(0.5, 0.9), delays=(0.0, 100.0), n_records=None):
    run = make_run(n_states, rates, delays)
    return build_report(run, make_records(run)[:n_records])


@pytest.fixture(scope="module")
def report():
    return make_report()


@pytest.fixture(scope="module")
def page(report):
    return page_text(report)


def change_pair(report, arm, **changes):
    """The report with other facts of one pair."""
    loop = report.closed_loop
    pairs = {**loop.pairs, arm: replace(loop.pairs[arm], **changes)}
    return replace(report, closed_loop=replace(loop, pairs=pairs))


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
    for told in [*re.split(r"(?<=\.) (?=[A-Z])", report.verdict), *report.compressed]:
        assert told in words
    for task in report.closed_loop.tasks:
        assert task.language in words
    assert "incomplete" not in words


def test_the_same_report_gives_the_same_bytes(report, page):
    assert page_text(report) == page


def test_no_two_elements_share_an_id(page):
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_text_from_outside_is_escaped():
    hostile = "<script>alert('x')</script><b title=\""
    run = make_run(3, (0.5,), (0.0,))
    design = run.design
    task = replace(design.tasks[0], language=hostile)
    arms = tuple(replace(arm, codec=arm.codec and hostile) for arm in design.arms)
    run = replace(run, model=hostile, machine=hostile, config={**run.config, "note": hostile})
    run = change_design(
        run, tasks=(task, *design.tasks[1:]), arms=arms, protocol={"note": hostile},
        environment=hostile,
    )  # fmt: skip
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
    assert figures_of(report, {}) == []
    assert "dense" in " ".join(parse(page_text(report)).text)
    assert "| dense | 16 |" in card_text(report)


COLOURS = {"curve": 0}


def test_delays_have_a_curve_only_where_they_differ(report):
    (success,) = report.measures
    assert "dense +100 ms" in delay_curve(success, report.arms, COLOURS)
    assert delay_curve(success, undelayed(report.arms), COLOURS) is None
    at_first = figures_of(report, COLOURS)[0]
    assert at_first.title == "Success"
    assert "+100 ms" not in at_first.svg


def test_curves_take_their_colours_from_the_page(report):
    figures = figures_of(report, COLOURS)
    assert [figure.title for figure in figures] == ["Success", "Against dense", "Delay"]
    for figure in figures:
        assert "var(--series-0)" in figure.svg
        assert "#0102" not in figure.svg


def test_differences_far_below_the_margin_are_arrows(report):
    (success,), arms = report.measures, undelayed(report.arms)
    assert "\N{MINUS SIGN}64<" not in change_curve(success, arms, COLOURS)
    paired = {**success.paired, "curve 0.9": Estimate(-0.64, -0.7, -0.5, 12)}
    assert "\N{MINUS SIGN}64<" in change_curve(replace(success, paired=paired), arms, COLOURS)


def test_motion_is_marked_where_its_interval_excludes_no_change(report):
    found = {"jerk_m_s3": Estimate(1.2, 1.1, 1.3, 9), "seam_jump": Estimate(-0.2, -0.4, 0.1, 9)}
    changed = change_pair(report, "curve 0.5", motion=found)
    changes = {m.key: found["curve 0.5"] for m, found in motion_changes(changed.closed_loop)}
    jerk, seam = changes["jerk_m_s3"], changes["seam_jump"]
    assert (jerk.text, jerk.interval, jerk.direction) == (
        "\N{MULTIPLICATION SIGN} 1.20", "1.10 to 1.30", "more",
    )  # fmt: skip
    assert 50 < jerk.places[0] < jerk.places[1] < jerk.places[2] <= 100
    assert (seam.direction, seam.places) == ("", [0.0, 25.0, 62.5])
    assert changes["path_m"] is None


def test_a_metric_is_computed_compared_and_shown_once_it_is_registered(monkeypatch):
    monkeypatch.setitem(motion.METRICS, "reach_m", None)  # taken out again at the end
    motion.metric("reach_m", "Reach", "largest height of the hand", "difference", 3,
                  is_headline=True)(lambda steps: steps.hand[:, 2].max())  # fmt: skip
    hand = np.array([[0.0, 0.0, 0.1], [0.0, 0.0, 0.4], [0.0, 0.1, 0.2]])
    steps = motion.Steps(np.zeros((2, 7)), hand, np.array([True, False]), 20.0, -1)
    assert motion.motion_of(steps)["reach_m"] == 0.4
    run = make_run(3, (0.9,), (0.0,))
    records = [
        replace(r, motion={**r.motion, "reach_m": 0.5 if r.arm == "dense" else 0.75})
        for r in make_records(run)
    ]
    report = build_report(run, records)
    assert report.closed_loop.pairs["curve 0.9"].motion["reach_m"].value == pytest.approx(0.25)
    console = Console(file=io.StringIO(), width=120)
    print_report(report, console)
    for text in (console.file.getvalue(), card_text(report), page_text(report)):
        assert "reach" in text
        assert "+0.250" in text


def test_the_command_can_be_typed_again():
    """By its own reader: every option is there, and says the same."""
    run = make_run(2, (0.5, 0.9), (0.0,))
    settings = ClosedLoopSettings(
        "0,0.5", "curve window=16", tasks="0,3", stop_early=True, displace=0.04
    )
    for config in (run.config, comparable(settings)):
        words = shlex.split(command_of(replace(run, config=config)))
        assert words[:2] == ["python", "eval/libero.py"]
        found = comparable(tyro.cli(ClosedLoopSettings, args=words[2:]))
        assert {key: found[key] for key in config} == dict(config)


def film(folder, run, records, n_bytes=1000):
    """A run folder with a file for each pair of the arms."""
    write_run(folder, run, records)
    (folder / "videos").mkdir()
    for arm in run.design.arms:
        for scene in {record.scene for record in records} if arm.reference else ():
            stem = f"{scene.suite}_task{scene.task_id}_episode{scene.episode}"
            name = f"{stem}_{arm.name.replace(' ', '-')}.mp4"
            (folder / "videos" / name).write_bytes(bytes(n_bytes))
    return build_report(run, records)


def test_the_only_compressed_arm_may_be_missing_in_the_names_of_videos(tmp_path):
    run = make_run(4, (0.9,), (0.0,))
    report = film(tmp_path / "run", run, make_records(run))
    films = choose_films(report, tmp_path / "run")
    for path in (tmp_path / "run" / "videos").iterdir():
        path.rename(path.with_name(path.name.replace("_curve-0.9", "")))
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
    text = write_pages(report, tmp_path / "run").read_text(encoding="utf-8")
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
    assert text == card_text(read_report(folder))
    assert "report.html" in console.file.getvalue()


def test_the_card_of_one_arm(report):
    known = Estimate(1.2, 1.1, 1.3, 6)
    found = {"path_m": known, "duration_s": known, "jerk_m_s3": Estimate(1.3, 1.2, 1.4, 6)}
    report = change_pair(report, "curve 0.9", motion=found)
    times = Percentiles(40.0, 50.0, 60.0, 100)
    arms = {name: replace(a, latency_ms=times) for name, a in report.closed_loop.arms.items()}
    report = replace(report, closed_loop=replace(report.closed_loop, arms=arms))
    verdict, rest = card_text(report, "curve 0.9").split("\n", 1)
    assert verdict.startswith("**Undecided at rate 0.9 (1.6 bits a weight).")
    assert "0.5" not in verdict
    assert rest == CARD
    assert "curve 0.5" in card_text(report)
    with pytest.raises(UsageError, match=r"unknown compressed arm 'curve 0.8'. Did you mean"):
        card_text(report, "curve 0.8")


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


def test_pages_take_the_place_of_links_and_show_no_video_from_elsewhere(tmp_path):
    run = make_run(4, (0.9,), (0.0,))
    folder, secret = tmp_path / "run", tmp_path / "secret"
    report = film(folder, run, make_records(run))
    secret.write_text("mine")
    for name in ("report.html", "report.md", "report.json"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(secret)
    for video in (folder / "videos").iterdir():
        video.unlink()
        video.symlink_to(secret)
    assert Report(folder).run(Console(file=io.StringIO())) == 0
    assert secret.read_text() == "mine"
    assert "data:video" not in (folder / "report.html").read_text(encoding="utf-8")
    assert choose_films(report, folder) == []


def test_the_card_takes_no_markup_of_others(report):
    design = report.run.design
    world = "a [world](javascript:x) <img src=x>\n# of | mine <!-- end of einsort-vla results -->"
    other = replace(report, run=replace(report.run, design=replace(design, environment=world)))
    text = card_text(replace(other, notes=(*report.notes, f"by {world}")))
    assert not re.search(r"(?<!\\)(<[^b]|\[)", text)
    assert len(text.splitlines()) == len(card_text(report).splitlines()) + 2
