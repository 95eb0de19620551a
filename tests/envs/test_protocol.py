"""The protocol file is data, checked when it is read."""

import dataclasses

import pytest
import yaml

from einsort_vla.errors import MissingDependency, UsageError
from envs.libero import benchmark
from envs.libero.protocol import load_protocol, protocol_names


def test_protocols_extend_one_another():
    ours, lerobot, openpi = (load_protocol(name) for name in ("einsort", "lerobot", "openpi"))
    assert load_protocol() == ours
    assert protocol_names() == ["einsort", "lerobot", "openpi"]
    suites = ("libero_spatial", "libero_object", "libero_10", "libero_object_swap")
    assert [ours.steps_for(s) for s in suites] == [280, 280, 520, ours.default_max_steps]
    assert (lerobot.image_size_px, lerobot.quaternion_sign) == (360, "raw")
    assert (openpi.steps_for("libero_spatial"), openpi.shown_px) == (220, 224)
    assert lerobot.max_steps == ours.max_steps
    assert dataclasses.asdict(ours) == ours.as_dict()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(settle_step=3), "Did you mean 'settle_steps'"),
        (lambda d: d.pop("controller"), "lacks the keys controller"),
        (lambda d: d.update(while_thinking="holds"), "Did you mean 'hold'"),
        (lambda d: d.update(extends="lerobo"), "unknown protocol 'lerobo'. Did you mean 'lerobot'"),
    ],
)
def test_a_wrong_protocol_file_is_refused(change, message, tmp_path):
    data = load_protocol().as_dict()
    change(data)
    path = tmp_path / "protocol.yaml"
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(UsageError, match=message):
        load_protocol(str(path))


def test_a_protocol_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        load_protocol(str(tmp_path / "none.yaml"))
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(UsageError, match="is no YAML"):
        load_protocol(str(tmp_path / "broken.yaml"))


def test_a_missing_gl_library_is_named_with_its_package(monkeypatch):
    monkeypatch.setattr(benchmark.ctypes.util, "find_library", lambda name: None)
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    with pytest.raises(MissingDependency, match="apt-get install libosmesa6"):
        benchmark.prepare_gl()
