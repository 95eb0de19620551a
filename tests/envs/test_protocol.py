"""The protocol file is data, checked when it is read."""

import dataclasses

import pytest
import yaml

from einsort_vla.errors import MissingDependency, UsageError
from envs import benchmark
from envs.protocol import DEFAULT_PATH, load_protocol


def test_default_protocol_is_lerobots():
    protocol = load_protocol()
    budgets = [protocol.steps_for(s) for s in ("libero_spatial", "libero_object", "libero_10")]
    assert budgets == [280, 280, 520]
    assert protocol.steps_for("libero_object_swap") == protocol.default_max_steps
    assert dataclasses.asdict(protocol) == protocol.as_dict()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(settle_step=3), "Did you mean 'settle_steps'"),
        (lambda d: d.pop("controller"), "lacks the keys controller"),
    ],
)
def test_a_wrong_protocol_file_is_refused(change, message, tmp_path):
    data = yaml.safe_load(DEFAULT_PATH.read_text())
    change(data)
    path = tmp_path / "protocol.yaml"
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(UsageError, match=message):
        load_protocol(path)
    with pytest.raises(UsageError, match="does not exist"):
        load_protocol(tmp_path / "none.yaml")


def test_a_missing_gl_library_is_named_with_its_package(monkeypatch):
    monkeypatch.setattr(benchmark.ctypes.util, "find_library", lambda name: None)
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    with pytest.raises(MissingDependency, match="apt-get install libosmesa6"):
        benchmark.prepare_gl()
