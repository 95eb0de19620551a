"""Dense episodes move between runs only where nothing that decides them has changed."""

import json
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from einsort_vla.checkpoint import DenseFolder
from einsort_vla.errors import UsageError
from einsort_vla.results.episode import EpisodeRecord, Scene, read_episodes, write_episodes
from einsort_vla.results.run import LOG, read_run, write_run
from envs.libero import BENCHMARK
from envs.libero.protocol import load_protocol
from eval.closed_loop.baseline import read_dense
from eval.run.provenance import describe
from tests.results.made_up import make_run

SCENES = tuple(Scene("libero_object", 0, k, seed=0) for k in range(3))


def record(scene, arm="dense", outcome="success"):
    return EpisodeRecord(scene, arm, outcome, 100, 5.0, (40.0,))


def request(folder, scenes=SCENES):
    dense = DenseFolder(folder)
    return SimpleNamespace(dense=dense, scenes=scenes, protocol=load_protocol(), delays_ms=(0.0,),
                           benchmark=BENCHMARK)  # fmt: skip


@pytest.fixture
def earlier_run(tmp_path, tiny_policy_folder):
    folder = tmp_path / "earlier"
    folder.mkdir()
    inputs = {"policy": DenseFolder(tiny_policy_folder).sha256}
    run = describe("closed_loop", "eval/libero.py", "tiny", {"rate": "0.5"}, inputs,
                   BENCHMARK.packages)  # fmt: skip
    protocol = json.loads(json.dumps(load_protocol().as_dict()))
    write_run(folder, replace(run, design=replace(make_run(1).design, protocol=protocol)))
    other_seed = Scene("libero_object", 0, 2, seed=1)
    write_episodes(
        folder / LOG,
        [record(SCENES[0]), record(SCENES[1], "curve 0.5"), record(other_seed),
         record(SCENES[2], outcome="error")],
    )  # fmt: skip
    return folder


def test_the_same_scenes_of_the_same_policy_are_taken(earlier_run, tiny_policy_folder, tmp_path):
    found = read_dense(earlier_run, request(tiny_policy_folder))
    assert found == [record(SCENES[0])]
    write_episodes(tmp_path / LOG, found)
    assert read_episodes(tmp_path / LOG) == found
    with (tmp_path / LOG).open("a") as file:
        file.write('{"scene": {"suite"')  # a kill cut it short
    assert read_episodes(tmp_path / LOG) == found


def test_what_differs_is_named(earlier_run, tiny_policy_folder, tmp_path):
    run = read_run(earlier_run)

    def refused(message, scenes=SCENES, folder=earlier_run, **changes):
        write_run(earlier_run, replace(run, **changes))
        with pytest.raises(UsageError, match=message):
            read_dense(folder, request(tiny_policy_folder, scenes))

    refused("holds no run", folder=tmp_path)
    refused("another weights", inputs_sha256={"policy": "0"})
    refused("another versions and machine", versions={"mujoco": "3.4"}, machine="abacus")
    openpi = replace(run.design, protocol=load_protocol("openpi").as_dict())
    refused("another protocol", design=openpi)
    refused("holds a run of eval/libero.py", design=None)
    refused("no dense episode of these scenes", scenes=SCENES[1:])
