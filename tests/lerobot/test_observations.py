"""Observations from files, LeRobot datasets, and made up; calibration and comparison by them."""

import io
import re

import numpy as np
import pytest
from rich.console import Console

pytest.importorskip("lerobot")

from einsort_vla.checkpoint import DenseFolder, read_folder
from einsort_vla.cli.compress import Compress
from einsort_vla.cli.verify import Verify
from einsort_vla.errors import CheckpointError
from einsort_vla.families import input_features
from einsort_vla.lerobot import made_up_observations, read_frames, save_observations

STATE = {"dtype": "float32", "shape": (8,), "names": None}
PICTURE = {"dtype": "image", "shape": (24, 32, 3), "names": ["height", "width", "channels"]}
CAMERAS = ("observation.images.image", "observation.images.image2")


def observations(n, task="push", size=(24, 32)):
    rng = np.random.default_rng(0)
    return [
        {
            **{camera: rng.integers(0, 256, (*size, 3), np.uint8) for camera in CAMERAS},
            "observation.state": rng.normal(size=8).astype(np.float32),
            "task": task,
        }
        for _ in range(n)
    ]


def same(found, expected):
    assert found.keys() == expected.keys()
    return all(np.array_equal(found[key], expected[key]) for key in expected)


def make_dataset(folder, seen):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    features = {"observation.state": STATE, **dict.fromkeys(CAMERAS, PICTURE)}
    dataset = LeRobotDataset.create("me/mine", 10, features, root=folder, use_videos=False)
    for observation in seen:
        dataset.add_frame(dict(observation))
    dataset.save_episode()
    dataset.finalize()


def test_frames_of_a_lerobot_dataset(tmp_path):
    seen = observations(6)
    make_dataset(tmp_path / "data", seen)
    found = read_frames(str(tmp_path / "data"), 3)
    assert all(same(f, seen[k]) for f, k in zip(found, (1, 3, 5), strict=True))


def test_frames_of_files_are_spread_over_all(tmp_path):
    for k in range(3):
        save_observations(tmp_path / f"{k}.safetensors", observations(4, task=f"task {k}"))
    assert [o["task"] for o in read_frames(str(tmp_path), 3)] == ["task 0", "task 1", "task 2"]
    assert len(read_frames(str(tmp_path), 100)) == 12
    assert len(read_frames(str(tmp_path / "1.safetensors"), 100)) == 4


def test_made_up_observations_fit_the_policy_and_repeat(reference_policy):
    features = input_features(DenseFolder(reference_policy).config)
    statistics = {"observation.state": {"mean": np.full(8, 5.0), "std": np.full(8, 0.1)}}
    first, second = (made_up_observations(features, statistics, 50) for _ in range(2))
    assert all(same(a, b) for a, b in zip(first, second, strict=True))
    assert first[0][CAMERAS[0]].shape[-1] == 3
    states = np.stack([o["observation.state"] for o in first])
    assert abs(states.mean() - 5) < 0.05
    assert abs(states.std() - 0.1) < 0.02


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "do not exist"),
        (lambda p: p.mkdir(), "neither"),
        (lambda p: p.write_bytes(b"no tensors"), "or it is no safetensors"),
        (lambda p: (p / "meta").mkdir(parents=True) or (p / "meta/info.json").write_text("{}"),
         "no LeRobot dataset that can be read"),
    ],
)  # fmt: skip
def test_what_is_no_source_of_frames(tmp_path, make, message):
    make(tmp_path / "x")
    with pytest.raises(CheckpointError, match=message):
        read_frames(str(tmp_path / "x"), 3)


def test_compressed_with_frames_and_compared_at_them(reference_policy, tmp_path):
    def run(command):
        console = Console(record=True, width=200, file=io.StringIO())
        assert command.run(console) == 0
        return console.export_text()

    frames = tmp_path / "frames.safetensors"
    save_observations(frames, observations(3, size=(96, 96)))
    errors = {}
    for name, source in (("plain", None), ("fed", str(frames))):
        out = run(Compress(str(reference_policy), tmp_path / name, rate=0.8, calibrate=source))
        assert ("Watched the dense policy at 3 looks" in out) == bool(source)
        content = read_folder(tmp_path / name)
        assert content.is_calibrated == bool(source)
        assert content.coded.keys() == DenseFolder(reference_policy).matrices.keys()
        out = run(Verify(tmp_path / name, reference_policy, frames=str(frames), looks=3))
        errors[name] = float(re.search(r"3 given observations: (\S+) standard", out)[1])
    assert 0 < errors["fed"] < errors["plain"] < 1  # what was watched is what is kept close
