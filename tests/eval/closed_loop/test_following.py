"""What follows a run: trackers, recordings, videos, and the early end of an arm."""

import time
from pathlib import Path
from types import SimpleNamespace

import imageio.v3 as imageio
import numpy as np
import pytest
from rich.console import Console

from einsort_vla.errors import MissingDependency
from einsort_vla.results.episode import EpisodeRecord, Scene, episode_name
from einsort_vla.results.run import write_run
from eval.closed_loop.followers import Followers, open_tracker
from eval.closed_loop.recording import Recording
from eval.closed_loop.video import FRAMES, frames_path, save_frames
from eval.run.arms import Arm, Variant
from tests.results.made_up import make_run

ARMS = [Arm("dense", Variant("a")), Arm("curve 0.9", Variant("b"), reference="dense")]
SCENES = [Scene("libero_object", k % 10, k // 10, 0) for k in range(300)]


def followers(output: Path, **changes):
    settings = {"video": False, "track": None, "stop_early": False, "margin": 0.05} | changes
    request = SimpleNamespace(
        scenes=SCENES,
        settings=SimpleNamespace(**settings),
        protocol=SimpleNamespace(control_freq_hz=20),
    )
    return Followers(request, ARMS, [], output, Console(quiet=True))


def record(scene, arm, success=True):
    return EpisodeRecord(scene, arm, "success" if success else "failure", 40, 1.0, (5.0,) * 10)


@pytest.mark.parametrize(("wins", "verdict"), [(True, "not before 100"), (False, "before 30")])
def test_an_arm_ends_once_a_bound_that_holds_at_all_times_has_decided(wins, verdict, tmp_path):
    with followers(tmp_path, stop_early=True) as following:
        decided_after = None
        for k, scene in enumerate(SCENES):
            following.add(record(scene, "dense"))
            assert "dense" not in following.decided()
            following.add(record(scene, "curve 0.9", wins))
            if following.decided():
                decided_after = k + 1
                break
    # Nobody waits for the dense arm any more.
    assert list(following.decided()) == ["curve 0.9", "dense"]
    assert decided_after > 100 if verdict == "not before 100" else decided_after < 30


def test_both_arms_frames_become_one_video(tmp_path):
    videos = tmp_path / "videos"
    with followers(tmp_path, video=True) as following:
        for arm, shade in (("dense", 60), ("curve 0.9", 200)):
            frames = [np.full((64, 64, 3), shade, np.uint8)] * (4 if arm == "dense" else 6)
            save_frames(frames_path(videos, episode_name(SCENES[0], arm)), frames)
            following.add(record(SCENES[0], arm))
    assert [path.name for path in videos.iterdir()] == [
        "libero_object_task0_episode0_curve-0.9.mp4"
    ]
    film = imageio.imread(next(videos.iterdir()))
    assert len(film) == 6
    assert abs(int(film[5, 40, 30, 0]) - 60) < 12  # the one that ended first stays as it was
    assert abs(int(film[5, 40, -30, 0]) - 200) < 12
    assert not (videos / FRAMES).exists()


def test_wandb_is_told_of_running_rates(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    write_run(tmp_path, make_run(1))
    with followers(tmp_path, track="wandb") as following:
        following.add(record(SCENES[0], "dense"))
        following.add(record(SCENES[0], "curve 0.9", success=False))
    log = next((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    for _ in range(100):  # wandb's own process writes it, some time after `finish`
        if b"success rate/curve 0.9" in log.read_bytes():
            break
        time.sleep(0.1)
    assert b"success rate/curve 0.9" in log.read_bytes()


def test_a_tracker_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "trackio", None)
    with pytest.raises(MissingDependency, match=r"pip install 'einsort-vla\[trackio\]'"):
        open_tracker("trackio", tmp_path)


def test_a_recording_holds_pictures_states_and_actions(tmp_path):
    recording = Recording(tmp_path / "recordings" / "one.rrd")
    for shade in (10, 250):
        seen = {
            "observation.images.image": np.full((32, 32, 3), shade, np.uint8),
            "observation.state": np.arange(8.0),
            "task": "open the drawer",
        }
        recording.look(seen, np.zeros((8, 7)))
    recording.close()
    written = (tmp_path / "recordings" / "one.rrd").read_bytes()
    assert written.startswith(b"RRF2")
    for entity in (b"observation.images.image", b"observation.state", b"action"):
        assert entity in written
