"""The whole chunk as one graph: the parts joined, the steps of the flow one after the other."""

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from einsort_vla.export.linear import OPERATOR
from einsort_vla.runtime.manifest import (
    ACTIONS,
    DENOISE_STEP,
    NOISE,
    NOISY_ACTIONS,
    PREFIX,
    TIME,
    VELOCITY,
    VISION,
)


def unrolled(parts: Mapping[str, onnx.ModelProto], n_steps: int) -> onnx.ModelProto:
    """One model from pictures, words, state and noise to actions.

    Euler's method from time 1 to 0, in float32, as LeRobot's `euler_integrate`.

    Args:
        parts: the models of `vision`, `prefix` and `denoise_step`, without function bodies.
        n_steps: of the flow.
    """
    vision, prefix, step = (parts[name].graph for name in (VISION, PREFIX, DENOISE_STEP))
    embeddings = vision.output[0].name
    own = {NOISY_ACTIONS, TIME, *(value.name for value in prefix.output)}
    others = [value for value in step.input if value.name not in own]  # a state, most often
    shown = {
        value.name: value
        for value in [*vision.input, *prefix.input, *others]
        if value.name != embeddings
    }
    known = {name: name for name in [*shown, embeddings]}
    nodes = _copy(vision, VISION, known)
    names = {value.name: value.name for value in prefix.output}
    nodes += _copy(prefix, PREFIX, known | names)
    constants = [numpy_helper.from_array(np.array(-1 / n_steps, np.float32), "time_step")]
    actions = NOISE
    batch = "batch_shape"
    nodes.append(helper.make_node("Shape", [NOISE], [batch], start=0, end=1))
    for k in range(n_steps):
        moved = ACTIONS if k == n_steps - 1 else f"actions_{k + 1}"
        constants.append(
            numpy_helper.from_array(np.array(1.0 - k / n_steps, np.float32), f"time_{k}")
        )
        nodes.append(helper.make_node("Expand", [f"time_{k}", batch], [f"times_{k}"]))
        velocity = f"{VELOCITY}_{k}"
        given = known | names | {NOISY_ACTIONS: actions, TIME: f"times_{k}", VELOCITY: velocity}
        nodes += _copy(step, DENOISE_STEP, given, k)
        nodes.append(helper.make_node("Mul", [velocity, "time_step"], [f"moves_{k}"]))
        nodes.append(helper.make_node("Add", [actions, f"moves_{k}"], [moved]))
        actions = moved
    weights = [
        weight
        for graph, scope in ((vision, VISION), (prefix, PREFIX), (step, DENOISE_STEP))
        for weight in _weights(graph, scope)
    ]
    noisy = next(value for value in step.input if value.name == NOISY_ACTIONS)
    inputs = [*shown.values(), _renamed(noisy, NOISE)]
    graph = helper.make_graph(
        nodes, "chunk", inputs, [_renamed(noisy, ACTIONS)], [*constants, *weights]
    )
    example = parts[DENOISE_STEP]
    return helper.make_model(
        graph, opset_imports=example.opset_import, ir_version=example.ir_version
    )


def _copy(
    graph: onnx.GraphProto, scope: str, given: Mapping[str, str], k: int | None = None
) -> list[NodeProto]:
    """The nodes of a part, with its own values in a scope, weights in one that all copies share."""
    shared = {weight.name for weight in graph.initializer}
    own = scope if k is None else f"{scope}_{k}"

    def renamed(name: str) -> str:
        if not name or name in given:
            return given.get(name, "")
        return f"{scope if name in shared else own}/{name}"

    copies = []
    for node in graph.node:
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.input[:], copy.output[:] = map(renamed, node.input), map(renamed, node.output)
        if node.op_type == OPERATOR:
            copy.name = f"{node.name}#{k + 1}" if k else node.name
        else:
            copy.name = f"{own}/{node.name}"
        copies.append(copy)
    return copies


def _weights(graph: onnx.GraphProto, scope: str) -> Iterable[TensorProto]:
    for weight in graph.initializer:
        copy = TensorProto()
        copy.CopyFrom(weight)
        copy.name = f"{scope}/{weight.name}"
        yield copy


def _renamed(value: ValueInfoProto, name: str) -> ValueInfoProto:
    copy = ValueInfoProto()
    copy.CopyFrom(value)
    copy.name = name
    return copy
