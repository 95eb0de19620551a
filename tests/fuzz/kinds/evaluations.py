"""Runs, reports, receipts and logs of evaluations."""

import json
from pathlib import Path
from typing import Any

from einsort_vla.results.card import card_text, joined_text
from einsort_vla.results.closed_loop import make_report
from einsort_vla.results.episode import read_episodes
from einsort_vla.results.joined import check_joinable
from einsort_vla.results.merge import join_episodes, join_runs
from einsort_vla.results.page import joined_page, page_text
from einsort_vla.results.run import read_run
from einsort_vla.results.sources import read_sources
from eval.text.vqa_run import read_answers
from tests.fuzz.change import Target
from tests.fuzz.kinds.folders import ANYTHING
from tests.fuzz.kinds.kind import Kind
from tests.results import made_up, made_up_texts


def make_runs(folder: Path) -> None:
    """A closed-loop run of a few episodes, a text evaluation, and a receipt."""
    run = made_up.make_run(3, (0.5,), (0.0,))
    made_up.write_run(folder / "loop", run, made_up.make_records(run))
    make_report(folder / "loop")
    made_up_texts.keep_policies(folder / "loop", {"curve-0.5": "11" * 32})
    made_up_texts.write_text_run(folder / "text", made_up_texts.make_report(rates=(0.5,)))
    made_up_texts.write_receipt(folder / "device", "11" * 32)


def open_runs(folder: Path, out: Path) -> Any:
    """What `einsort-vla report` makes its pages of, but for the pictures."""
    sources = read_sources(folder)
    check_joinable(sources)
    return sources, joined_text(sources)


def open_pages(folder: Path, out: Path) -> Any:
    """The pages themselves."""
    sources = read_sources(folder)
    check_joinable(sources)
    texts = [(page_text(s.report), card_text(s.report)) for s in sources.runs if s.report]
    return len(joined_page(sources)) > 1000, len(texts)


def make_shards(folder: Path) -> None:
    run = made_up.make_run(2, (0.5,), (0.0,))
    records = made_up.make_records(run)
    made_up.write_run(folder / "one", run, records[::2])
    made_up.write_run(folder / "two", run, records[1::2])


def open_shards(folder: Path, out: Path) -> Any:
    """What `einsort-vla merge` joins."""
    folders = [folder / "one", folder / "two"]
    joined = join_runs({f: read_run(f) for f in folders})
    records = join_episodes({f: read_episodes(f / "episodes.jsonl") for f in folders})
    made_up.write_run(out / "joined", joined, records)
    return make_report(out / "joined")


def make_answers(folder: Path) -> None:
    answers = [
        {"question_id": f"q{k}", "arm": arm, "prompt": "whose tea?", "answer": "my tea"}
        for k in range(3)
        for arm in ("dense", "curve 0.5")
    ]
    lines = "".join(json.dumps(answer) + "\n" for answer in answers)
    (folder / "answers.jsonl").write_text(lines)


def open_answers(folder: Path, out: Path) -> Any:
    """What a text evaluation goes on with."""
    return read_answers(folder / "answers.jsonl")


# Of results every value is data: another one of the same type is another result.
EPISODES = ("*.latency_ms*", "*.wall_s", "*.error", "*.actions_sha256", "*.layers*", "*.motion*",
            "*.divergence*", "*.displacement_m", "*.wrong_pictures", "*.stored",
            "episodes.jsonl", "*episodes.jsonl.?", "*episodes.jsonl.??")  # fmt: skip
RUN = ("*.config.*", "*.versions.*", "*.inputs_sha256.*", "*.protocol.*", "*.reference",
       "*.codec", "*.rate_requested", "*.rate_achieved", "*.bits_per_weight", "*.core_kept*",
       "*.order_bits*", "*.weight_bytes", "*.delay_ms", "*.shares_episodes", "*.git_commit",
       "*.design")  # fmt: skip
MEASURED = ("*.latency_ms*", "*.motion.*", "*.wall_s", "*.error")  # no numbers are left out
# Of the last three, None is a value like others: what the dense arm lacks.
ANY = ("*.config.*", "*.protocol.*", "*.versions.*", "*.git_commit", "*.core_kept*",
       "*.rate_achieved", "*.weight_bytes")  # fmt: skip
REPORT = (*RUN, "*.notes", "*.closed_loop", "*.low", "*.high", "*.n", "*.paired.*", "*.arms.*",
          "*.errors*", "*.unit", "*.paired_as")  # fmt: skip
_RUNS = (
    Target("loop/run.json", "json", 2, ANYTHING, RUN, free=ANY),
    Target("loop/episodes.jsonl", "lines", 2, ANYTHING, EPISODES, free=MEASURED),
    Target("loop/report.json", "json", 0.3, has_free_bytes=True),
    Target("text/run.json", "json", 1, ANYTHING, RUN, free=ANY),
    Target("text/report.json", "json", 2, ANYTHING, (*REPORT, "report.json"), free=ANY),
    Target("device/engines/bench-tensorrt.json", "json", 1.5, ANYTHING, ANYTHING),
    Target("device/manifest.json", "json", 0.5, ANYTHING, ANYTHING),
    Target("loop/policies/*/einsort_manifest.json", "json", 0.7, ANYTHING, ANYTHING),
)
KINDS = (
    Kind("answers", make_answers, open_answers, (
        Target("answers.jsonl", "lines", 1, ANYTHING, ("answers.jsonl*.?", "answers.jsonl")),
    ), 0.5),
    Kind("runs", make_runs, open_runs, _RUNS, 3),
    Kind("pages", make_runs, open_pages, _RUNS, 0.3),
    Kind("shards", make_shards, open_shards, (
        Target("one/run.json", "json", 2, ANYTHING, RUN, free=ANY),
        Target("two/episodes.jsonl", "lines", 2, ANYTHING, EPISODES, free=MEASURED),
    ), 1.2),
)  # fmt: skip
