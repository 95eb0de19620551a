"""Models of one node of the domain `einsort`."""

from onnx import TensorProto, helper, numpy_helper

from einsort_vla.export.functions import OPSET, function_bodies
from einsort_vla.export.linear import DOMAIN, OPERATOR, ROTATION, in_pairs


def matmul_model(compressed, dtype=TensorProto.FLOAT, **changes):
    """A `MatmulCurve` node; `changes` are of its constants and attributes."""
    spec, parts = compressed.spec, compressed.parts
    constants = {"words": in_pairs(parts["words"]).numpy(),
                 "scale": parts["scale"].numpy().view("int8")}  # fmt: skip
    attributes = {
        "out_features": compressed.shape[0], "in_features": compressed.shape[1],
        "eighths": spec.eighths, "window": spec.window, "unit": float(parts["unit"]),
        "plugin_namespace": DOMAIN, "plugin_version": "1",
    }  # fmt: skip
    for name, value in changes.items():
        (constants if name in constants else attributes)[name] = value
    return _model(OPERATOR, constants, attributes, dtype)


def rotation_model(rotation, **changes):
    """A `Rotate` node, with the matrices of a module `Rotation`."""
    constants = {name: getattr(rotation, name).numpy()
                 for name in ("signs", "first", "second", "cosine")}  # fmt: skip
    return _model(ROTATION, constants | changes, {}, TensorProto.FLOAT)


def _model(op, constants, attributes, dtype):
    node = helper.make_node(op, ["x", *constants], ["y"], name="the.layer", domain=DOMAIN,
                            **attributes)  # fmt: skip
    x, y = (helper.make_tensor_value_info(name, dtype, None) for name in ("x", "y"))
    stored = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(
        helper.make_graph([node], "one node", [x], [y], stored),
        opset_imports=opsets, functions=function_bodies(), ir_version=10,
    )  # fmt: skip
