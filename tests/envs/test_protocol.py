"""The protocol file is data, checked when it is read."""

import dataclasses
import math

import pytest
import yaml

from einsort_vla.errors import EinSortError, MissingDependency, UsageError
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
        (lambda d: d.update({5: 5}), "unknown key in protocol.yaml '5'"),
        (lambda d: d.update(max_steps={"a": 10**9}), r"protocol.yaml is damaged: .* <= 10000 - at"),
        (lambda d: d.update(image_size_px="128"), "Expected `int`, got `str` - at .*image_size_px"),
        (
            lambda d: d.update(gripper_open=math.nan),
            "protocol.yaml is damaged: .*gripper_open",
        ),
        (lambda d: d.update(extends="lerobo"), r"extends 'lerobo'. A protocol .*einsort, lerobot"),
    ],
)
def test_a_wrong_protocol_file_is_refused(change, message, tmp_path):
    data = load_protocol().as_dict()
    change(data)
    path = tmp_path / "protocol.yaml"
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(EinSortError, match=message):
        load_protocol(str(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "is no YAML"),
        ("- a", "holds no keys"),
        ("name: caf\xe9", "is not UTF-8: byte 0xe9 at 9"),
        ("name: 2026-99-99", "is no YAML: month must be in"),
        ("a: " + "[" * 5000, "is no YAML: it is nested too deeply"),
        (
            "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
            r"write out what the alias .* line 2",
        ),
        ("#" * 200_000, "has more than 100000 bytes"),
        ("extends: one.yaml", "cannot extend itself: one.yaml extends one.yaml"),
        ("extends: two.yaml", "one.yaml extends two.yaml extends one.yaml"),
        ("extends: ../one.yaml", "extends '../one.yaml'. A protocol extends one of the project"),
        ("extends: {a: b}", "A protocol extends one of the project"),
        ("extends: three.yaml", "protocol file .*/three.yaml does not exist"),
    ],
)
def test_a_protocol_that_cannot_be_read_is_refused(tmp_path, content, message):
    (tmp_path / "one.yaml").write_bytes(content.encode("latin-1"))
    (tmp_path / "two.yaml").write_text("extends: one.yaml")
    with pytest.raises(EinSortError, match=message):
        load_protocol(str(tmp_path / "one.yaml"))
    with pytest.raises(UsageError, match="does not exist"):
        load_protocol(str(tmp_path / "none.yaml"))


def test_a_protocol_extends_a_file_beside_it(tmp_path):
    (tmp_path / "base.yaml").write_text("extends: openpi\nsettle_steps: 3")
    (tmp_path / "mine.yaml").write_text("extends: base.yaml\nname: mine")
    found = load_protocol(str(tmp_path / "mine.yaml"))
    assert (found.name, found.settle_steps, found.image_resize_px) == ("mine", 3, 224)


def test_a_missing_gl_library_is_named_with_its_package(monkeypatch):
    monkeypatch.setattr(benchmark.ctypes.util, "find_library", lambda name: None)
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    with pytest.raises(MissingDependency, match="apt-get install libosmesa6"):
        benchmark.prepare_gl()
