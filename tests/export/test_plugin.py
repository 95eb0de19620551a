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

import numpy as np
import pytest
import torch

from einsort_vla.codec import Leader
from einsort_vla.errors import MissingDependency
from einsort_vla.export.plugin import build
from einsort_vla.kernels.words import to_words
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
    """All that TensorRT asks before it runs a layer of 67 x 33 with slices of 2 weights."""
    expected = [
        "creators: 1 PLUGIN CREATOR_V3ONE MatmulLeader 1 einsort",
        *(f"wants: {name}" for name in ("out_features", "in_features", "d", "b", "s")),
        "core: MatmulLeader 1 einsort",
        "shapes: 0 -1 -1 67", "shapes rank 1: 0 67",
        *(f"wrong {what}: -1" for what in ("x", "signs", "table", "count")),
        *(f"format {what}: 1" for what in ("x float", "x half", "x bfloat", "y float", "usual")),
        *(f"format {what}: 0" for what in ("x int8", "x chw32", "signs int8", "table half")),
        *(f"format {what}: 0" for what in ("scale float", "y half")),
        "configure: 0", "shape change: 0", "no rows: 0",
        "field out_features: 67", "field in_features: 33", "field d: 2", "field b: 2", "field s: 6",
    ]  # fmt: skip
    lines = log.splitlines()
    assert not set(expected) - set(lines)
    assert lines.count("bad: 0") == 7
    assert "bad: 1" not in lines
    assert lines.count("type: 1") == 3
    for found in (
        r"out_features=0 in_features=33", r"d=3; a slice has", r"b=0 s=8", r"b=14 s=1",
        r"no kernel for d=4 b=4 s=10", r"field s is missing", r"out_features has type 1",
        r"x has 34 features; in_features is 33", r"dimension 0 of signs is 70; .* must be 71",
        r"table has 1 dimensions", r"4 inputs and 1 outputs",
    ):  # fmt: skip
        assert re.search(f"^log: MatmulLeader: .*{found}", log, re.MULTILINE), found


def test_the_protocol_and_what_it_refuses(folder, plugin):
    log = run([harness(folder, "g++"), plugin])
    check_protocol(log)
    assert "no driver: -1" in log
    assert "log: MatmulLeader: there is no CUDA driver: libcuda.so.1" in log


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
    driver(folder, ["-O1"])
    spec, rng = Leader(2, 2, 6), np.random.default_rng(0)
    parts = {
        name: torch.from_numpy(rng.integers(0, 256, part.shape, dtype=np.uint8))
        for name, part in spec.layout((67, 33)).items()
        if part.dtype == torch.uint8
    }
    parts["scale"] = torch.from_numpy(rng.uniform(0.5, 2, 67)).half()
    x = torch.from_numpy(rng.standard_normal((21, 33))).half()
    expected = x.double() @ spec.decode(parts, (67, 33)).double().t()
    streams = to_words(parts["signs"]), to_words(parts["indices"])
    case = folder / "case.bin"
    arrays = (x, *streams, spec.table().float(), parts["scale"])
    case.write_bytes(b"".join(array.contiguous().numpy().tobytes() for array in arrays))
    log = run([harness(folder, "g++"), plugin, case], LD_LIBRARY_PATH=str(folder), EMULATED_SM="87")
    answer = bytes.fromhex(re.search(r"^y:(.*)$", log, re.MULTILINE)[1])
    found = torch.frombuffer(bytearray(answer), dtype=torch.float16).view(21, 67).double()
    assert (found - expected).norm() / expected.norm() < 2e-3


@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="needs tensorrt-rtx-cu13"
)
@pytest.mark.parametrize("kind", ["FLOAT", "FLOAT16", "BFLOAT16"])
def test_weights_stay_packed_in_an_engine(tmp_path, plugin, kind):
    made = json.loads(run([sys.executable, ENGINE, plugin, tmp_path, kind]).splitlines()[-1])
    assert sorted(made["layers"]) == [*["CONSTANT"] * 4, "PLUGIN_V3"]
    assert made["output"] == [
        {"FLOAT16": "HALF", "BFLOAT16": "BF16"}.get(kind, kind),
        [-1, -1, 2048],
    ]
    assert made["engine_bytes"] <= 1.1 * made["packed_bytes"] + 65536


def test_missing_headers_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match="pip install kernel-lens"):
        build.build_plugin(tmp_path, "x86_64", CUBINS)
