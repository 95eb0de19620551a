"""ONNX Runtime with the native library: from the coded streams, in the bits of `--backend cpu`."""

import ctypes
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from einsort_vla.codec import CompressedTensor, Curve
from einsort_vla.export.linear import Rotation
from einsort_vla.kernels import BackendChoice
from einsort_vla.layers import CompressedLinear
from einsort_vla.native_library import native_library
from tests.export.nodes import matmul_model, rotation_model
from tests.kernels.test_native import random_parts

onnxruntime = pytest.importorskip("onnxruntime")

CPU = BackendChoice.parse("cpu")
MATRIX = (8192, 4096)  # decoded to float32: 134 MB, its streams 8 MB


def session(model, threads=1, **options):
    own = onnxruntime.SessionOptions()
    own.intra_op_num_threads, own.log_severity_level = threads, 4
    for name, value in options.items():
        setattr(own, name, value)
    own.register_custom_ops_library(str(native_library()))
    source = model if isinstance(model, str) else model.SerializeToString()
    return onnxruntime.InferenceSession(source, own, providers=["CPUExecutionProvider"])


def run(model, x, threads=1):
    return session(model, threads).run(None, {"x": x})[0]


@pytest.mark.parametrize(
    "spec", [Curve(1.625), Curve(2.0, 10), Curve(4.125, 16), Curve(6.0, 6)], ids=str
)
@pytest.mark.parametrize("shape", [(1, 1), (131, 33), (520, 384)], ids=str)
def test_products_have_the_bits_of_pytorch(spec, shape):
    compressed, generator = random_parts(spec, shape)
    layer, model = CompressedLinear(compressed, None, CPU), matmul_model(compressed)
    for size in ((), (1,), (7,), (2, 3), (2, 0), (1, 2, 1, 3)):
        x = torch.randn(*size, shape[1], generator=generator)
        for threads in (1, 2):
            found = run(model, x.numpy(), threads)
            assert np.array_equal(found, layer(x).numpy()), (size, threads)


def test_rotated_products_are_near_those_of_pytorch():
    """The library makes the rotation's cosines anew; the graph has those of PyTorch."""
    for columns in (64, 240, 7):
        compressed, generator = random_parts(Curve(2.0, rotated=True), (40, columns))
        plain = CompressedTensor(Curve(2.0), compressed.shape, compressed.parts)
        x = torch.randn(3, 2, columns, generator=generator)
        turned = run(rotation_model(Rotation(columns)), x.numpy(), threads=2)
        found = run(matmul_model(plain), turned)
        expected = CompressedLinear(compressed, None, CPU)(x)
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-3)


def test_the_library_goes_before_the_body_of_a_node(tmp_path):
    """Else matrices would be decoded, and nobody would see it."""
    compressed, _ = random_parts(Curve(2.0), (64, 32))
    level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    session(matmul_model(compressed), optimized_model_filepath=str(tmp_path / "run.onnx"),
            graph_optimization_level=level)  # fmt: skip
    ran = onnx.load(tmp_path / "run.onnx")
    assert [node.op_type for node in ran.graph.node] == ["MatmulCurve"]


def test_nodes_that_do_not_fit_are_refused():
    compressed, _ = random_parts(Curve(2.0), (20, 65))  # 3 words a column, an odd number
    x = np.zeros((1, 65), np.float32)
    words, scale = (np.frombuffer(weight.raw_data, dtype) for weight, dtype in zip(
        matmul_model(compressed).graph.initializer, (np.int32, np.int8), strict=True))  # fmt: skip
    assert run(matmul_model(compressed), x).shape == (1, 20)
    for changes, message in (
        ({"words": words[:-1]}, r"the\.layer: the words do not fit the matrix \(20 x 65"),
        ({"words": np.append(words, words[:1])}, "the words do not fit the matrix"),
        ({"words": words[None]}, "words must be a list of int32"),
        ({"scale": scale[:-1]}, "scale must have a byte for each of 20 outputs"),
        ({"out_features": 2**62}, "out_features is 4611686018427387904"),
        ({"in_features": 2**40, "words": words[:0]}, "the words do not fit"),
        ({"in_features": 0}, "in_features is 0"),
        ({"eighths": 7}, "there is no such code"),
        ({"eighths": 2**35 + 16}, "there is no such code"),
        ({"window": 11}, "there is no such code"),
    ):
        with pytest.raises(Exception, match=message):
            session(matmul_model(compressed, **changes))
    with pytest.raises(
        Exception, match=r"it takes \(\.\.\., 65\) inputs, these are \(\.\.\., 64\)"
    ):
        run(matmul_model(compressed), x[:, :64])
    with pytest.raises(Exception, match=r"it takes \(\.\.\., 65\) inputs, these are \(\.\.\., 0\)"):
        run(matmul_model(compressed), np.array(0, np.float32))
    model = matmul_model(compressed)
    moved = model.graph.initializer.pop(0)
    model.graph.input.append(helper.make_tensor_value_info("words", moved.data_type, moved.dims))
    with pytest.raises(Exception, match="words must be a constant of the graph"):
        session(model)


def test_rotations_that_do_not_fit_are_refused():
    rotation = Rotation(48)
    eye = np.eye(8, dtype=np.float32)
    for changes, message in (
        ({"signs": np.ones(96, np.float32)}, "do not make up a rotation of 96"),
        ({"first": eye[:3, :3]}, "do not make up a rotation of 48"),
        ({"first": eye[:2, :2], "second": eye[:3, :3], "cosine": eye}, "do not make up a rotation"),
        ({"cosine": eye[:3, :2]}, "cosine must be a square matrix"),
        ({"cosine": eye[:0, :0]}, "cosine is no rotation's"),
        ({"signs": np.array(1, np.float32)}, "signs is no rotation's"),
    ):
        with pytest.raises(Exception, match=message):
            session(rotation_model(rotation, **changes))


def test_a_runtime_that_is_too_old_is_told_so():
    """One whose tables of functions end before what the library needs."""
    said = []
    create_status = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p)(
        lambda code, text: said.append((code, text.decode())) or 1
    )
    table = (ctypes.c_void_p * 1)(ctypes.cast(create_status, ctypes.c_void_p))
    get_api = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint32)(
        lambda version: ctypes.addressof(table) if version <= 16 else None
    )
    get_version = ctypes.CFUNCTYPE(ctypes.c_char_p)(lambda: b"1.16.3")
    base = (ctypes.c_void_p * 2)(*(ctypes.cast(f, ctypes.c_void_p) for f in (get_api, get_version)))
    register = ctypes.CDLL(str(native_library())).RegisterCustomOps
    register.restype = ctypes.c_void_p
    assert register(None, base) == 1
    assert said == [(9, "einsort needs ONNX Runtime 1.17 or newer; this is 1.16.3")]


@pytest.mark.skipif(sys.platform != "linux", reason="what tells of memory")
def test_memory_is_that_of_the_streams(tmp_path):
    compressed, _ = random_parts(Curve(2.0), MATRIX)
    path = str(tmp_path / "model.onnx")
    onnx.save(matmul_model(compressed), path, save_as_external_data=True, location="weights.bin")
    program = f"""
import numpy, onnxruntime, sys
from einsort_vla.native_library import native_library
from einsort_vla.runtime.measure import _status
assert "torch" not in sys.modules
options = onnxruntime.SessionOptions()
options.register_custom_ops_library(str(native_library()))
before = _status("RssAnon")
session = onnxruntime.InferenceSession({path!r}, options, providers=["CPUExecutionProvider"])
session.run(None, {{"x": numpy.ones((50, {MATRIX[1]}), numpy.float32)}})
print(_status("RssAnon") - before, _status("VmHWM"))
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    own, peak = map(int, told.stdout.split())
    streams = compressed.parts["words"].nbytes
    assert own < streams  # they are mapped from the file
    assert peak < 4 * 8192 * 4096, peak
