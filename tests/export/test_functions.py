"""What the nodes mean in ONNX's own operators, against the definition, bit for bit."""

import numpy as np
import pytest
import torch
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from einsort_vla.codec import Curve, decode
from einsort_vla.codec.curve.values import CURVE_EIGHTHS, GRIDS, PERIOD, POLYNOMIALS
from einsort_vla.codec.rotation import rotate
from einsort_vla.export.linear import Rotation, RotationNode
from tests.export.nodes import matmul_model, rotation_model
from tests.kernels.test_native import random_parts

onnxruntime = pytest.importorskip("onnxruntime")

CODES = [Curve(k / PERIOD, window) for k in CURVE_EIGHTHS for window in (13, 16)]
CODES += [Curve(2.0, window) for window in POLYNOMIALS] + [Curve(bits, bits) for bits in GRIDS]
# Segments of less than 128 rows, whole ones and both; tiles of less than 32 columns, too.
SHAPES = [(1, 1), (67, 48), (256, 32), (131, 33)]


def run(model, x):
    """By ONNX Runtime, without the native library."""
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]


@pytest.mark.parametrize("spec", CODES, ids=str)
def test_every_code_at_odd_shapes(spec):
    for shape in SHAPES:
        compressed, _ = random_parts(spec, shape)
        found = run(matmul_model(compressed), np.eye(shape[1], dtype=np.float32))
        assert np.array_equal(found.T, decode(compressed).numpy()), shape


@pytest.mark.parametrize("spec", [Curve(1.625), Curve(5.0, 16), Curve(7.0, 7)], ids=str)
def test_the_reference_of_onnx_agrees(spec):
    for shape in SHAPES:
        compressed, _ = random_parts(spec, shape)
        identity = np.eye(shape[1], dtype=np.float32)
        (found,) = ReferenceEvaluator(matmul_model(compressed)).run(None, {"x": identity})
        assert np.array_equal(found.T, decode(compressed).numpy()), shape


def test_halves_stay_halves_and_any_axes():
    compressed, generator = random_parts(Curve(2.25), (18, 20))
    x = torch.randn(2, 3, 20, generator=generator).half().numpy()
    expected = x.astype(np.float64) @ decode(compressed).double().numpy().T
    model = matmul_model(compressed, TensorProto.FLOAT16)
    for y in (run(model, x), *ReferenceEvaluator(model).run(None, {"x": x})):
        assert y.dtype == np.float16
        assert np.linalg.norm(y - expected) < 1e-3 * np.linalg.norm(expected)
    assert run(matmul_model(compressed), np.zeros((0, 20), np.float32)).shape == (0, 18)


@pytest.mark.parametrize("width", [48, 96, 7, 64])
def test_rotations_turn_inputs_as_the_codec_does(width):
    x = torch.randn(3, 5, width, generator=torch.Generator().manual_seed(0))
    expected = rotate(x.flatten(0, 1)).view(x.shape)
    torch.testing.assert_close(Rotation(width)(x), expected)
    model = rotation_model(RotationNode(width))
    for y in (run(model, x.numpy()), *ReferenceEvaluator(model).run(None, {"x": x.numpy()})):
        torch.testing.assert_close(torch.from_numpy(y), expected)
    assert run(model, np.zeros((2, 0, width), np.float32)).shape == (2, 0, width)
