"""A further environment is one module and one line: a made-up one runs wherever LIBERO does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

import envs
from einsort_vla.errors import UsageError
from einsort_vla.lerobot import load_observations
from einsort_vla.results.episode import Scene
from einsort_vla.runtime.observation import STATE_KEY, TASK_KEY
from eval.closed_loop.calibration import collect
from eval.closed_loop.request import check_request, find_benchmark
from eval.closed_loop.schedule import Job
from eval.closed_loop.settings import ClosedLoopSettings
from eval.closed_loop.worker import Station, Worker
from eval.run.arms import Arm, Variant
from tests.envs.point import BENCHMARK, PROTOCOL, STEP_M

ROOT = Path(__file__).parents[2]
SUITE = "point_space"


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(envs.BENCHMARKS, "point", "tests.envs.point")


class Straight:
    """Goes straight to the goal, four of eight actions at a time."""

    chunk_size, n_action_steps, layers, memory_bytes, last_chunk_ms = 8, 4, {}, None, 1.0

    def reset(self, seed):
        self.seed = seed

    def predict_action_chunk(self, observation):
        place, goal = np.split(observation[STATE_KEY][:6], 2)
        chunk = np.zeros((8, 7), np.float32)
        steps = np.diff(np.linspace(place, goal, self.n_action_steps + 1), axis=0)
        chunk[: self.n_action_steps, :3] = steps / STEP_M
        return chunk


def test_a_worker_runs_its_episodes():
    worker = Worker(Station(BENCHMARK, PROTOCOL), lambda variant: Straight())

    def run(task_id, episode, delay_ms=0.0):
        arm = Arm("dense", Variant("nowhere"), delay_ms)
        record = worker.run(Job(Scene(SUITE, task_id, episode, seed=0), arm))
        assert record.outcome == "success", record.error
        return record

    there, back = run(0, 1), run(1, 1)  # the same environment takes the other task
    assert there.steps == back.steps == 4
    assert there.motion["path_m"] == pytest.approx(back.motion["path_m"])
    assert there.motion["duration_s"] == pytest.approx(0.4)
    assert there.motion["gripper_toggles"] == 0
    assert there.actions_sha256 == run(0, 1).actions_sha256 != back.actions_sha256
    assert run(0, 1, delay_ms=250).steps == 4 + 3  # held still for three steps of 100 ms


def test_the_name_of_a_suite_chooses_its_environment():
    request = check_request(ClosedLoopSettings("0", suite=SUITE, tasks="1", episodes=2))
    assert (request.benchmark, request.protocol) == (BENCHMARK, PROTOCOL)
    assert [(scene.task_id, scene.episode) for scene in request.scenes] == [(1, 0), (1, 1)]
    for suite, changes, message in [
        ("pint_space", {}, "unknown suite 'pint_space'.*its environment: libero, point"),
        ("point_plane", {}, "unknown suite 'point_plane'"),
        (SUITE, {"tasks": "2"}, "no task 2"),
        (SUITE, {"episodes": 6}, "stores 5 initial states"),
        (SUITE, {"protocol": "einsort"}, "unknown protocol 'einsort'"),
        (SUITE, {"displace": 0.01}, r"--displace 0.01 is outside \[0, 0.0\] metres"),
    ]:
        with pytest.raises(UsageError, match=message):
            check_request(ClosedLoopSettings("0", suite=suite, **changes))
    with pytest.raises(UsageError, match=r"suites of LIBERO and of Point"):
        find_benchmark(f"libero_object,{SUITE}")


def test_calibration_watches_its_episodes(tmp_path):
    scenes = [Scene(SUITE, task_id, 0, seed=0, stored=False) for task_id in range(2)]
    with Progress(disable=True) as progress:
        files = collect(Straight(), BENCHMARK, scenes, tmp_path, progress)
    assert [file.name for file in files] == [f"{SUITE}-{k}-0-seed0-0mm.safetensors" for k in (0, 1)]
    assert [seen[TASK_KEY] for seen in load_observations(files)] == ["reach goal 0", "reach goal 1"]


COMMAND = """
import sys
from pathlib import Path
from rich.console import Console
import envs
envs.BENCHMARKS["point"] = "point"
from eval import calibrate, libero
from eval.closed_loop import worker
from eval.closed_loop.settings import ClosedLoopSettings

# --help answers at once, and a simulator's process holds no more than it needs.
assert not {"torch", "gymnasium", "lerobot", "scipy"} & sys.modules.keys()
from eval.closed_loop.command import evaluate
settings = ClosedLoopSettings(
    "0", suite="point_space", tasks="0", workers=1, output=Path(sys.argv[1])
)
assert evaluate(settings, Console()) == 0
"""


def test_the_command_runs_it_to_its_page_where_no_simulator_can_be_imported(tmp_path):
    blocked, folder = tmp_path / "blocked", tmp_path / "run"
    blocked.mkdir()
    for name in ("libero", "robosuite", "mujoco"):
        (blocked / f"{name}.py").write_text(f"raise RuntimeError('{name} was imported')")
    path = os.pathsep.join(
        [str(blocked), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    )
    result = subprocess.run(
        [sys.executable, "-c", COMMAND, folder], capture_output=True, text=True, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr + result.stdout
    run, report = (json.loads((folder / f"{n}.json").read_text()) for n in ("run", "report"))
    design = run["design"]
    assert (design["environment"], design["protocol"]["name"]) == ("Point", "point")
    assert report["complete"]
    assert report["measures"][0]["arms"]["dense"]["n"] == 1
    assert SUITE in (folder / "report.html").read_text()
