"""Results in the model card of a checkpoint; nothing that a person wrote in it is lost."""

import io
import json

import pytest
from msgspec.structs import replace
from rich.console import Console

from einsort_vla.checkpoint import file_sha256, write_results
from einsort_vla.cli.results import Report
from einsort_vla.errors import CheckpointError, UsageError
from einsort_vla.results.record import write_record
from einsort_vla.results.run import read_run
from tests.compressing import compress
from tests.results.made_up import make_records, make_run, write_run
from tests.results.made_up_texts import make_report, write_text_run

RATE = 0.75


@pytest.fixture
def checkpoint(tiny_policy_folder, tmp_path):
    """A compressed copy of a small policy."""
    folder = tmp_path / "small"
    compress(tiny_policy_folder, folder, RATE)
    return folder


@pytest.fixture
def results(tiny_policy_folder, tmp_path):
    """Runs of that policy in closed loop, and of another model on texts."""
    run = make_run(3, (0.5, RATE), (0.0,))
    weights = file_sha256(tiny_policy_folder / "model.safetensors")
    run = replace(run, inputs_sha256={"policy": weights})
    write_run(tmp_path / "results" / "robot", run, make_records(run))
    write_text_run(tmp_path / "results" / "language", make_report(rates=(0.5, RATE)))
    return tmp_path / "results"


def write_card(results, checkpoint):
    return Report(results, checkpoint).run(Console(file=io.StringIO()))


def edit_run(results, **changes):
    run = read_run(results / "robot")
    config = {**run.config, **changes.pop("config", {})}
    write_record(results / "robot" / "run.json", replace(run, config=config, **changes))


def test_results_of_the_checkpoint_and_of_no_other_arm_go_into_its_card(results, checkpoint):
    assert write_card(results, checkpoint) == 0
    card = (checkpoint / "README.md").read_text(encoding="utf-8")
    own, other = card.split("## Results\n")[1].split("### Language: smollm2-135m")
    assert "### Robot in closed loop: made-up" in own
    assert "| curve 0.75 | 4.00<br>0.7504 |" in own
    assert "curve 0.5" not in card
    assert "### Latency" in own
    assert other.strip().startswith("Of another model, coded alike; not results of this checkpoint")
    assert "| curve 0.75 | 4.00<br>0.7503 | 107.62 MB<br>40 % | 17.55<br>" in other


def test_what_a_person_wrote_stays_and_a_second_time_changes_nothing(results, checkpoint):
    card = checkpoint / "README.md"
    mine = "\r\n## Results\r\nMine: 7/7 on the kitchen table.\r\n"
    card.write_bytes(card.read_bytes() + mine.encode())
    before = card.read_bytes()
    write_card(results, checkpoint)
    card.write_bytes(card.read_bytes() + b"\nAfter.  \n\n")
    once = card.read_bytes()
    assert once.startswith(before.rstrip())
    modified = card.stat().st_mtime_ns
    write_card(results, checkpoint)
    assert (card.read_bytes(), card.stat().st_mtime_ns) == (once, modified)
    write_results(checkpoint, "Other results.")
    changed = card.read_bytes()
    assert changed.startswith(before.rstrip())
    assert changed.endswith(b"Other results.\n<!-- end of einsort-vla results -->\n\nAfter.  \n\n")
    assert b"Robot in closed loop" not in changed


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace("### Latency", "### Latency, which I doubt"),
        lambda text: text.replace("<!-- end of einsort-vla results -->", ""),
        lambda text: text + text[text.index("<!-- einsort-vla results") :],
    ],
)
def test_edited_results_are_not_written_over(results, checkpoint, edit):
    write_card(results, checkpoint)
    card = checkpoint / "README.md"
    card.write_text(edit(card.read_text(encoding="utf-8")), encoding="utf-8")
    before = card.read_bytes()
    (results / "report.json").unlink()
    with pytest.raises(CheckpointError, match=r"README.md were edited.*Move what you wrote out of"):
        write_card(results, checkpoint)
    assert card.read_bytes() == before
    assert not (results / "report.json").exists()


def test_a_card_that_is_missing_or_no_utf_8(checkpoint):
    card = checkpoint / "README.md"
    card.write_bytes(b"caf\xe9")
    with pytest.raises(CheckpointError, match="is not UTF-8"):
        write_results(checkpoint, "text")
    card.unlink()
    with pytest.raises(CheckpointError, match=r"has no README.md to write results into"):
        write_results(checkpoint, "text")


@pytest.mark.parametrize("other", ["rate", "policy", "calibration", "weights"])
def test_a_checkpoint_without_results_is_refused_with_what_there_is(results, checkpoint, other):
    if other == "rate":
        design = read_run(results / "robot").design
        arms = tuple(arm for arm in design.arms if arm.rate_requested != RATE)
        edit_run(results, design=replace(design, arms=arms))
    elif other == "policy":
        edit_run(results, inputs_sha256={"policy": "ef" * 32})
    elif other == "calibration":
        edit_run(results, config={"calibrate": "statistics.safetensors"})
    else:  # the run kept its policy: it is of the same code, and other bytes
        kept = results / "robot" / "policies" / "curve-0.75"
        kept.mkdir(parents=True)
        manifest = {"files": {"model.safetensors": "00" * 32}}
        (kept / "einsort_manifest.json").write_text(json.dumps(manifest))
    before = (checkpoint / "README.md").read_bytes()
    with pytest.raises(UsageError, match=r"no result is of small \(curve 0.75 of dense weights"):
        write_card(results, checkpoint)
    assert (checkpoint / "README.md").read_bytes() == before
    assert not (results / "report.json").exists()


def test_the_card_of_a_single_run(results, checkpoint):
    write_card(results / "robot", checkpoint)
    card = (checkpoint / "README.md").read_text(encoding="utf-8")
    assert "| curve 0.75 | 4.00<br>0.7504 |" in card
    assert "Language" not in card


def test_a_dense_policy_has_no_results_of_compression(results, tiny_policy_folder):
    with pytest.raises(CheckpointError, match="holds a dense policy"):
        write_card(results, tiny_policy_folder)
