"""Running engines, with stand-ins for TensorRT and for the GPU's memory: no GPU is here."""

import ctypes
import json
import sys
from dataclasses import asdict, replace
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from einsort_vla.errors import CheckpointError, EngineError, ShapeError
from einsort_vla.runtime import engine as engines
from einsort_vla.runtime import gpu, tensorrt
from einsort_vla.runtime.bundle import Bundle
from einsort_vla.runtime.manifest import Batch, Part, TargetFacts, Value

MOST = 4


class HostMemory:
    """What `gpu.Memory` is, in memory."""

    def __init__(self, n_bytes):
        self.bytes = (ctypes.c_char * n_bytes)()
        self.address = ctypes.addressof(self.bytes)

    def write(self, host):
        ctypes.memmove(self.address, host, len(self.bytes))

    def read(self, host):
        ctypes.memmove(host, self.address, len(self.bytes))


class Doubling:
    """An execution context whose output `y` is twice its input `x`."""

    def __init__(self):
        self.shape, self.addresses, self.works = (), {}, True

    def set_input_shape(self, name, shape):
        assert name == "x"
        if shape[0] > MOST:
            return False
        self.shape = shape
        return True

    def set_tensor_address(self, name, address):
        self.addresses[name] = address

    def get_tensor_shape(self, name):
        return self.shape

    def execute_async_v3(self, stream):
        n = int(np.prod(self.shape))
        x, y = (
            np.frombuffer((ctypes.c_float * n).from_address(self.addresses[k]), np.float32)
            for k in "xy"
        )
        y[:] = 2 * x
        return self.works


@pytest.fixture
def session(tmp_path, monkeypatch):
    """Of a bundle of one part."""
    described = [Value(name, "float32", (None, 3)) for name in "xy"]
    part = Part((described[0],), (described[1],), ())
    manifest: Any = SimpleNamespace(
        parts={"part": part},
        batch=Batch(MOST, True),
        target=TargetFacts("rtx40", "a desktop", "x86_64", 89, None),
    )
    (tmp_path / "engines").mkdir()
    (tmp_path / "engines" / "part.engine").write_bytes(b"engine")
    (tmp_path / "plugin").mkdir()
    (tmp_path / "plugin" / "libeinsort_plugin-x86_64.so").write_bytes(b"plugin")
    context = Doubling()
    runtime = SimpleNamespace(
        deserialize_cuda_engine=lambda content: SimpleNamespace(
            create_execution_context=lambda: context
        )
    )
    fake = ModuleType("tensorrt_rtx")
    fake.__dict__.update(
        Runtime=lambda logger: runtime,
        Logger=type("Logger", (), {"ERROR": 0, "__init__": lambda self, level: None}),
        get_plugin_registry=lambda: SimpleNamespace(load_library=lambda path: None),
    )
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", fake)
    monkeypatch.setattr(engines, "_version", lambda builder: "1.7.1")
    monkeypatch.setattr(tensorrt, "find_builder", lambda bundle: "tensorrt_rtx")
    for name, value in {
        "Memory": HostMemory, "enter": lambda: None, "compute_capability": lambda: 89,
    }.items():  # fmt: skip
        monkeypatch.setattr(gpu, name, value)
    bundle = Bundle(tmp_path, manifest, "f" * 64)
    plugin = bundle.plugin
    file = tmp_path / "engines/part.engine"
    facts = engines.EngineFacts(1.0, {}, (), file.name, engines.sha256(file), 6)
    known = asdict(engines._circumstances(bundle, "tensorrt_rtx", plugin))
    receipt = engines.Receipt(**known, parts={"part": facts})
    (tmp_path / "engines" / "receipt.json").write_text(json.dumps(asdict(receipt)))
    return lambda **facts: (tensorrt.EngineSession(replace(bundle, **facts)), context)


def test_inputs_go_in_and_outputs_come_back(session):
    made, context = session()
    for n in (1, MOST, 2):
        x = np.arange(3 * n, dtype=np.float64).reshape(n, 3)
        np.testing.assert_array_equal(made.run("part", {"x": x, "more": x})["y"], 2 * x)
    context.works = False
    with pytest.raises(EngineError, match="could not run part"):
        made.run("part", {"x": x})


def test_larger_batches_than_the_engines_are_refused(session):
    made, _ = session()
    for n in (0, MOST + 1):
        with pytest.raises(ShapeError, match=r"must be \['1 to 4', 3\]"):
            made.run("part", {"x": np.zeros((n, 3))})


@pytest.mark.parametrize("changed", ["engines/part.engine", "plugin/libeinsort_plugin-x86_64.so"])
def test_engines_that_do_not_fit_are_refused(session, tmp_path, changed):
    (tmp_path / changed).write_bytes(b"another")
    with pytest.raises(CheckpointError, match=r"cannot be used: .*(plugin|not what was built)"):
        session()


def test_engines_of_another_gpu_are_refused(session, monkeypatch):
    monkeypatch.setattr(gpu, "compute_capability", lambda: 86)
    with pytest.raises(CheckpointError, match=r"for compute capability 8\.9; this GPU has 8\.6"):
        session()


def test_no_signature_covers_engines_that_others_built(session):
    session()  # the user who names no key takes the folder as it is
    with pytest.raises(CheckpointError, match="not built here, and no signature covers them"):
        session(is_signed=True)
