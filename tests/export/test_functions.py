"""What the nodes mean in ONNX's own operators, against the definition in float64."""

import numpy as np
import pytest
import torch
from onnx import TensorProto, checker, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from einsort_vla.codec import Leader, decode, encode, tables
from einsort_vla.export.functions import OPSET, function_bodies
from einsort_vla.export.linear import DOMAIN, OPERATOR, ExportedLinear

onnxruntime = pytest.importorskip("onnxruntime")

SPECS = [*(Leader(*window) for window in sorted(tables.available())), Leader(1, 8, 0)]
SHAPES = [(67, 48), (7, 12), (1, 5), (64, 33)]  # at (1, 5) a column is shorter than a window


def model_of(layer, dtype=TensorProto.FLOAT):
    weights = {
        name: getattr(layer, name).numpy() for name in ("signs", "indices", "table", "scale")
    }
    node = helper.make_node(
        OPERATOR, ["x", *weights], ["y"], domain=DOMAIN, out_features=layer.out_features,
        in_features=layer.in_features, d=layer.spec.d, b=layer.spec.b, s=layer.spec.s,
        plugin_namespace=DOMAIN, plugin_version="1",
    )  # fmt: skip
    ends = [
        helper.make_tensor_value_info(name, dtype, ["batch", None, n])
        for name, n in (("x", layer.in_features), ("y", layer.out_features))
    ]
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(
        helper.make_graph([node], "one layer", ends[:1], ends[1:], constants),
        opset_imports=opsets, functions=function_bodies(), ir_version=10,
    )  # fmt: skip
    checker.check_model(model)
    return model


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_every_table_at_odd_shapes(spec):
    generator = torch.Generator().manual_seed(0)
    for rows, columns in SHAPES:
        compressed = encode(torch.randn(rows, columns, generator=generator), spec)
        model = model_of(ExportedLinear(compressed, None, torch.float32))
        x = torch.randn(2, 3, columns, generator=generator)
        found = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x.numpy()})
        expected = x.double() @ decode(compressed).double().t()
        error = (torch.from_numpy(found[0]) - expected).norm() / expected.norm()
        assert error < 1e-5, (rows, columns)


def test_the_reference_of_onnx_agrees_and_halves_stay_halves():
    generator = torch.Generator().manual_seed(0)
    compressed = encode(torch.randn(18, 20, generator=generator), Leader(2, 2, 6))
    layer = ExportedLinear(compressed, None, torch.float16)
    x = np.random.default_rng(0).standard_normal((1, 4, 20)).astype(np.float16)
    model = model_of(layer, TensorProto.FLOAT16)
    (found,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    (reference,) = ReferenceEvaluator(model).run(None, {"x": x})
    assert found.dtype == reference.dtype == np.float16
    expected = x.astype(np.float64) @ decode(compressed).double().numpy().T
    for y in (found, reference):
        assert np.linalg.norm(y - expected) < 2e-3 * np.linalg.norm(expected)


@pytest.mark.parametrize("width", [48, 96, 7, 64])
def test_rotated_layers_turn_their_inputs_as_the_codec_does(width):
    from einsort_vla.codec.rotation import rotate
    from einsort_vla.export.linear import _Rotation

    x = torch.randn(3, 5, width, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(_Rotation(width)(x).flatten(0, 1), rotate(x.flatten(0, 1)))
