"""Dense episodes move between runs only where nothing that decides them has changed."""

import json

import pytest

from einsort_vla.errors import UsageError
from eval.baseline import read_dense
from eval.output import LOG, RUN
from eval.provenance import describe
from eval.rollout import EpisodeRecord, Scene
from eval.schedule import begin_log, read_log

SCENES = [Scene("libero_object", 0, k, seed=0) for k in range(3)]


def record(scene, arm="dense"):
    return EpisodeRecord(scene, arm, "success", 100, 5.0, [40.0])


@pytest.fixture
def earlier_run(tmp_path, tiny_policy_folder):
    folder = tmp_path / "earlier"
    folder.mkdir()
    inputs = {"policy": tiny_policy_folder / "model.safetensors"}
    (folder / RUN).write_text(json.dumps(describe({"rate": 0.5}, inputs)))
    other_seed = Scene("libero_object", 0, 2, seed=1)
    records = [record(SCENES[0]), record(SCENES[1], "compressed"), record(other_seed)]
    begin_log(folder / LOG, records)
    return folder


def test_the_same_scenes_of_the_same_policy_are_taken(earlier_run, tiny_policy_folder, tmp_path):
    found = read_dense(earlier_run, tiny_policy_folder, SCENES)
    assert found == [record(SCENES[0])]
    begin_log(tmp_path / LOG, found)
    begin_log(tmp_path / LOG, [])  # a log that was begun is left alone
    assert read_log(tmp_path / LOG) == found


def test_what_differs_is_named(earlier_run, tiny_policy_folder, tmp_path):
    run = json.loads((earlier_run / RUN).read_text())

    def refused(message, scenes=SCENES, folder=earlier_run, **changes):
        (earlier_run / RUN).write_text(json.dumps(run | changes))
        with pytest.raises(UsageError, match=message):
            read_dense(folder, tiny_policy_folder, scenes)

    refused("holds no run", folder=tmp_path)
    refused("another inputs_sha256", inputs_sha256={"policy": "0"})
    refused("another versions and machine", versions={"mujoco": "3.4"}, machine="abacus")
    refused("no dense episode of these scenes", scenes=SCENES[1:])
