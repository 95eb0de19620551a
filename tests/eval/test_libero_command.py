"""`python eval/libero.py`: misuse is one clear message, and the real thing runs end to end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
from rich.console import Console

from einsort_vla.errors import EinSortError, UsageError
from einsort_vla.results.report import read_report
from einsort_vla.results.run import CLOSED_LOOP, write_run
from eval.closed_loop.command import evaluate as main
from eval.closed_loop.settings import ClosedLoopSettings
from eval.run.output import comparable, run_folder
from eval.run.provenance import describe

ROOT = Path(__file__).parents[2]


def command(*arguments):
    return [sys.executable, str(ROOT / "eval" / "libero.py"), *map(str, arguments)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rate": "1.5"}, r"--rate 1.5 is outside \[0, 0.95\]"),
        ({"rate": "nan"}, "--rate nan is outside"),
        ({"rate": "-0.1"}, "outside"),
        ({"rate": "0.5", "codec": "curv"}, "unknown codec 'curv'. Did you mean 'curve'"),
        ({"rate": "0.5", "suite": "libero_objects"}, "Did you mean 'libero_object'"),
        ({"rate": "0.5", "tasks": "10"}, "libero_object has tasks 0 to 9; 10 was asked for"),
        ({"rate": "0.5", "tasks": "a"}, "not a list of numbers"),
        ({"rate": "0.5", "episodes": 51}, "stores 50 initial states.* ask for 0 to 50"),
        ({"rate": "0.5", "episodes": 11, "first_state": 40}, "ask for 40 to 50"),
        ({"rate": "0.5", "episodes": 0}, "at least 1"),
        ({"rate": "0.1,0.5,..."}, "or a series such as"),
        ({"rate": "0.5", "codec": "curve,scaler"}, "Did you mean 'scalar'"),
        ({"rate": "0.5", "latency": "soon"}, "neither milliseconds nor a receipt"),
        ({"rate": "0.5", "protocol": "openpy"}, "Did you mean 'openpi'"),
        ({"rate": "0.5", "margin": 0.0}, "--margin 0.0 is outside"),
        ({"rate": "0.5", "workers": 500}, "--workers 500 would need about .* GB are free: "),
        (
            {"rate": "0.5", "ray": "auto", "video": True},
            "--ray runs PyTorch without --video and --record",
        ),
        (
            {"rate": "0.5", "runtime": "onnx", "codec": "curve", "batch": 2},
            "--batch is for --runtime torch",
        ),
        ({"rate": "0.5", "displace": 4}, r"--displace 4 is outside \[0, 0.1\] metres"),
        ({"rate": "0.5", "backend": "gpu"}, "unknown backend 'gpu'"),
        (
            {"rate": "0.5", "runtime": "onnx", "codec": "scalar"},
            "runs --codec curve, not scalar",
        ),
        (
            {"rate": "0.5", "runtime": "onnx", "codec": "curve", "backend": "cpu"},
            "--backend is for --runtime torch",
        ),
        ({"rate": "0.5", "wrong_pictures": True}, "needs --displace"),
        ({"rate": "0.5", "policy": "./nowhere"}, "does not exist"),
        ({"rate": "0.95"}, "reaches rate 0.9"),
    ],
)
def test_misuse_is_refused(settings, message, tmp_path):
    with pytest.raises(EinSortError, match=message):
        main(ClosedLoopSettings(output=tmp_path / "out", **settings), Console(quiet=True))
    assert not (tmp_path / "out").exists()


def test_policies_that_cannot_run_are_refused(tiny_policy_folder, tmp_path):
    def refused(message, **config):
        path = tiny_policy_folder / "config.json"
        path.write_text(json.dumps({"type": "smolvla", **config}))
        settings = ClosedLoopSettings(
            "0.5", policy=str(tiny_policy_folder), output=tmp_path / "out"
        )
        with pytest.raises(EinSortError, match=message):
            main(settings, Console(quiet=True))
        assert not (tmp_path / "out").exists()

    front = {"observation.images.front": {"type": "VISUAL", "shape": [3, 256, 256]}}
    refused("trained with the cameras observation.images.front; LIBERO has", input_features=front)
    seven = {"action": {"type": "ACTION", "shape": [14]}}
    state = {"observation.state": {"type": "STATE", "shape": [8]}}
    inputs = {**state, "observation.images.image": front["observation.images.front"]}
    refused(
        r"trained with actions of \[14\] numbers; LIBERO's have 7",
        input_features=inputs,
        output_features=seven,
    )
    refused("does not say which cameras", output_features=seven)
    fits = {
        "input_features": inputs,
        "output_features": {"action": {"type": "ACTION", "shape": [7]}},
    }
    refused("is already compressed", type="einsort_smolvla")
    refused("policies of type 'gr00t' are not compressed", type="gr00t", **fits)


def test_output_of_another_run_is_left_alone(tmp_path):
    def refused(message, **changes):
        with pytest.raises(EinSortError, match=message):
            main(
                ClosedLoopSettings(**{"rate": "0.5", "output": tmp_path, **changes}),
                Console(quiet=True),
            )

    refused("no run to resume", resume=True)
    (tmp_path / "thesis.tex").touch()
    refused("not empty and holds no run")
    earlier = comparable(ClosedLoopSettings(rate="0.25"))
    write_run(tmp_path, describe(CLOSED_LOOP, "eval/libero.py", "tiny", earlier, {}))
    refused("holds a run already")
    refused("holds another run, with --rate ", resume=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.json", "thesis.tex"]


def test_two_processes_do_not_write_one_run(tmp_path):
    def describe_in(_):
        return describe(CLOSED_LOOP, "eval/libero.py", "tiny", comparable(settings), {})

    settings = ClosedLoopSettings(rate="0.5", output=tmp_path)
    with run_folder("tiny", settings, describe_in):
        again = ClosedLoopSettings(rate="0.5", output=tmp_path, resume=True)
        with pytest.raises(UsageError, match="another process is at work"):
            run_folder("tiny", again, describe_in).__enter__()
    with run_folder("tiny", again, describe_in):  # free again
        pass


def test_errors_reach_the_user_as_one_line_with_exit_code_2():
    result = subprocess.run(command("--rate", 2), capture_output=True, text=True, cwd="/")
    assert result.returncode == 2
    assert result.stderr.startswith("Error: --rate 2.0 is outside")
    assert "Traceback" not in result.stderr
    result = subprocess.run(command("--rate", "half"), capture_output=True, text=True, cwd="/")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


@pytest.mark.sim
def test_end_to_end_with_an_interrupt_and_resume(tmp_path):
    """The main job on one task: interrupted after an episode, resumed, reported, filmed."""
    output = tmp_path / "run"
    arguments = command("--rate", 0.5, "--tasks", 1, "--episodes", 2, "--workers", 1,
                        "--output", output, "--video")  # fmt: skip
    # A runner in the background of a shell ignores SIGINT, and so would its children.
    first = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    log = output / "episodes.jsonl"
    deadline = time.monotonic() + 300
    while not (log.exists() and log.read_text().count("\n") >= 2):
        assert time.monotonic() < deadline, "no episode ended in 5 minutes"
        assert first.poll() is None, first.communicate()
        time.sleep(0.2)
    os.killpg(first.pid, signal.SIGINT)
    stdout, stderr = first.communicate(timeout=60)
    assert "episodes are kept in" in stdout
    assert first.returncode == 130
    assert "Traceback" not in stderr
    before = log.read_text().splitlines()
    result = subprocess.run([*arguments, "--resume"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert log.read_text().splitlines()[: len(before)] == before
    check_report(read_report(output))
    card = (output / "policies" / "curve-0.5" / "README.md").read_text()
    assert "| curve 0.5 | " in card
    assert "curve 0.5" in (output / "report.html").read_text()
    videos = list((output / "videos").glob("*.mp4"))
    assert videos
    frame = imageio.imread(videos[0], index=0)
    assert frame.shape[1] > 2 * 250  # two panels
    assert np.asarray(frame).std() > 20  # a scene, not a blank


def check_report(report):
    assert report.complete
    dense, compressed = report.arms
    assert compressed.rate_achieved >= 0.5
    assert compressed.weight_bytes < 0.56 * dense.weight_bytes
    for arm in report.closed_loop.arms.values():
        assert (arm.tally.episodes, arm.tally.errors) == (2, 0)
        assert 1 < arm.latency_ms.p50 <= arm.latency_ms.p99
        assert 0.2 < arm.motion["path_m"] < 5
        # 8 bits a weight change nothing a robot notices: a dense success stays one.
        assert arm.tally.successes >= 1
    pair = report.closed_loop.pairs["curve 0.5"]
    assert pair.counts.n == 2
    assert 0 < pair.divergence.value < 0.05
