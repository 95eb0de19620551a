"""The TensorRT plugin without TensorRT and without a GPU: its protocol, its product, an engine."""

import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from einsort_vla.codec import Curve
from einsort_vla.errors import MissingDependency
from einsort_vla.export.plugin import build
from tests.kernels.emulation.build import compile_, driver

HARNESS, ENGINE = (Path(__file__).with_name(n) for n in ("plugin_harness.cpp", "rtx_engine.py"))
CUBINS = {86: b"cubin 86", 87: b"cubin 87"}  # not looked at without a GPU
GLIBC_OF_JETPACK_6 = (2, 35)
QEMU = ["qemu-aarch64-static", "-L", "/usr/aarch64-linux-gnu"]

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or importlib.util.find_spec("kernel_lens") is None,
    reason="needs kernel-lens, on x86_64",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("plugin")


@pytest.fixture(scope="module")
def plugin(folder):
    return build.build_plugin(folder, "x86_64", CUBINS)


def harness(folder, compiler):
    made = folder / "harness"
    headers = [f"-isystem{build._tensorrt_headers()}", f"-isystem{build.FOLDER / 'include'}"]
    compile_(["-O1", *headers, HARNESS, "-ldl"], made, compiler)
    return made


def run(command, **environment):
    result = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def check_protocol(log):
    """All that TensorRT asks before it runs a layer of 67 x 33 at 2 1/8 bits."""
    expected = [
        "creators: 1 PLUGIN CREATOR_V3ONE MatmulCurve 1 einsort",
        *(f"wants: {name}" for name in ("out_features", "in_features", "eighths", "window")),
        "wants: unit",
        "core: MatmulCurve 1 einsort",
        "shapes: 0 -1 -1 67", "shapes rank 1: 0 67",
        *(f"wrong {what}: -1" for what in ("x", "words", "scale", "count")),
        *(f"format {what}: 1" for what in ("x float", "x half", "x bfloat", "y float", "usual")),
        *(f"format {what}: 0" for what in ("x int8", "x chw32", "words int8")),
        *(f"format {what}: 0" for what in ("scale float", "y half")),
        "configure: 0", "shape change: 0", "no rows: 0",
        "field out_features: 67", "field in_features: 33", "field eighths: 17", "field window: 13",
        "field unit: 0.75",
    ]  # fmt: skip
    lines = log.splitlines()
    assert not set(expected) - set(lines)
    assert lines.count("bad: 0") == 12
    assert "bad: 1" not in lines
    assert lines.count("type: 1") == 3
    for found in (
        r"out_features=0 in_features=33; both must", r"eighths=7 window=13; there are codes",
        r"eighths=41 window=13", r"eighths=17 window=11", r"eighths=48 window=13",
        r"eighths=56 window=6", r"unit=-1; it must be", r"unit=inf", r"field unit is missing",
        r"out_features=1073741824 in_features=1;", r"out_features=1048576 in_features=1048576;",
        r"unit has type \d and length 1; it must be one FLOAT32",
        r"x has 34 features; in_features is 33", r"words has 148 elements; .* must have 149",
        r"scale has 2 dimensions", r"2 inputs and 1 outputs",
    ):  # fmt: skip
        assert re.search(f"^log: MatmulCurve: .*{found}", log, re.MULTILINE), found


def test_the_protocol_and_what_it_refuses(folder, plugin):
    log = run([harness(folder, "g++"), plugin])
    check_protocol(log)
    assert "no driver: -1" in log
    assert "log: MatmulCurve: there is no CUDA driver: libcuda.so.1" in log


@pytest.mark.skipif(
    not all(map(shutil.which, ("aarch64-linux-gnu-g++", "qemu-aarch64-static"))),
    reason="needs g++-aarch64-linux-gnu and qemu-user-static",
)
def test_the_protocol_on_aarch64(tmp_path):
    plugin = build.build_plugin(tmp_path, "aarch64", CUBINS)
    assert "aarch64" in run(["readelf", "-h", plugin]).lower()
    check_needs(plugin)
    check_protocol(run([*QEMU, harness(tmp_path, "aarch64-linux-gnu-g++"), plugin]))


def check_needs(plugin):
    """Nothing but an old enough libc, and nothing is visible but TensorRT's two functions."""
    needed = set(re.findall(r"NEEDED.*\[(.*)\]", run(["readelf", "-d", plugin])))
    assert needed <= {"libc.so.6", "libdl.so.2", "libm.so.6"} | {
        f"ld-linux-{name}" for name in ("x86-64.so.2", "aarch64.so.1")
    }
    symbols = run(["readelf", "-W", "--dyn-syms", plugin])
    versions = re.findall(r"GLIBC_(\d+)\.(\d+)", symbols)
    assert max((int(major), int(minor)) for major, minor in versions) <= GLIBC_OF_JETPACK_6
    defined = {
        line.split()[-1]
        for line in symbols.splitlines()
        if "GLOBAL" in line and " UND " not in line
    }
    assert {"setLoggerFinder", "getCreators"} <= defined
    assert not [name for name in defined if "einsort" in name]


def test_the_product_through_enqueue(folder, plugin):
    """On the driver that emulates a GPU, with the bytes in the order of the plugin's inputs."""
    check_needs(plugin)
    driver(folder, ["-O1", "-DEINSORT_CODES=CODE(17)"])
    spec, generator = Curve(2.125), torch.Generator().manual_seed(0)
    (n,) = spec.layout((67, 33))["words"].shape
    parts = {
        "words": torch.randint(-(2**15), 2**15, (n,), generator=generator).short(),
        "scale": torch.randint(0, 256, (67,), generator=generator).byte(),
        "unit": torch.tensor([0.75]),
    }
    x = torch.randn(21, 33, generator=generator).half()
    expected = x.double() @ spec.decode(parts, (67, 33)).double().t()
    case, padding = folder / "case.bin", torch.zeros(n % 2).short()
    arrays = (x, parts["words"], padding, parts["scale"])
    case.write_bytes(b"".join(array.numpy().tobytes() for array in arrays))
    log = run([harness(folder, "g++"), plugin, case], LD_LIBRARY_PATH=str(folder), EMULATED_SM="87")
    answer = bytes.fromhex(re.search(r"^y:(.*)$", log, re.MULTILINE)[1])
    found = torch.frombuffer(bytearray(answer), dtype=torch.float16).view(21, 67).double()
    assert (found - expected).norm() / expected.norm() < 5e-4


@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="needs tensorrt-rtx-cu13"
)
@pytest.mark.parametrize("kind", ["FLOAT", "FLOAT16", "BFLOAT16"])
def test_weights_stay_packed_in_an_engine(tmp_path, plugin, kind):
    made = json.loads(run([sys.executable, ENGINE, plugin, tmp_path, kind]).splitlines()[-1])
    assert sorted(made["layers"]) == [*["CONSTANT"] * 2, "PLUGIN_V3"]
    assert made["output"] == [
        {"FLOAT16": "HALF", "BFLOAT16": "BF16"}.get(kind, kind),
        [-1, -1, 2048],
    ]
    assert made["engine_bytes"] <= 1.1 * made["packed_bytes"] + 65536


def test_missing_headers_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match="pip install kernel-lens"):
        build.build_plugin(tmp_path, "x86_64", CUBINS)
