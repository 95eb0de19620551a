"""The parts of a policy of a few numbers, in ONNX's own operators alone, and their manifest."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper, parser

from einsort_vla.runtime.flow import MOVED_ACTIONS
from einsort_vla.runtime.manifest import (
    ACTIONS,
    DENOISE_STEP,
    NOISY_ACTIONS,
    PREFIX,
    VELOCITY,
    VISION,
    Batch,
    Graph,
    Part,
    TargetFacts,
    Value,
)

CHUNK_SIZE, ACTION_SIZE = 6, 3
_TEXTS = {
    VISION: """
        vision (float[B,2,3,4,4] images) => (float[B,2,8] image_embeddings) {
            flat_shape = Constant <value_ints = [0, 2, 48]> ()
            flat = Reshape (images, flat_shape)
            image_embeddings = MatMul (flat, see)
        }""",
    PREFIX: """
        prefix (float[B,2,8] image_embeddings, bool[B,2] image_masks, int64[B,5] tokens,
                bool[B,5] token_masks, float[B,3] state)
            => (float[2,B,1,7,4] keys, float[2,B,1,7,4] values, bool[B,7] prefix_mask) {
            last = Constant <value_ints = [-1]> ()
            middle = Constant <value_ints = [1]> ()
            words = Cast <to = 1> (tokens)
            column = Unsqueeze (words, last)
            spread = Mul (column, read)
            pose = MatMul (state, feel)
            own = Unsqueeze (pose, middle)
            moved = Add (spread, own)
            all = Concat <axis = 1> (image_embeddings, moved)
            prefix_mask = Concat <axis = 1> (image_masks, token_masks)
            split = Constant <value_ints = [0, 7, 2, 4]> ()
            third = Constant <value_ints = [2]> ()
            asked = MatMul (all, key)
            heads = Reshape (asked, split)
            layers = Transpose <perm = [2, 0, 1, 3]> (heads)
            keys = Unsqueeze (layers, third)
            values = Tanh (keys)
        }""",
    DENOISE_STEP: """
        denoise_step (float[2,B,1,7,4] keys, float[2,B,1,7,4] values, bool[B,7] prefix_mask,
                      float[B,6,3] noisy_actions, float[B] time, float[B,3] state)
            => (float[B,6,3] velocity) {
            over = Constant <value_ints = [0, 2]> ()
            outer = Constant <value_ints = [1, 2]> ()
            middle = Constant <value_ints = [1]> ()
            last = Constant <value_ints = [-1]> ()
            products = Mul (keys, values)
            tokens = ReduceSum <keepdims = 0> (products, over)
            shown = Cast <to = 1> (prefix_mask)
            weights = Unsqueeze (shown, last)
            seen = Mul (tokens, weights)
            context = ReduceSum <keepdims = 1> (seen, middle)
            told = MatMul (context, tell)
            now = Unsqueeze (time, outer)
            pose = Unsqueeze (state, middle)
            a = Add (noisy_actions, told)
            b = Add (a, now)
            c = Add (b, pose)
            turned = MatMul (c, turn)
            velocity = Tanh (turned)
        }""",
}
_WEIGHTS = {
    VISION: {"see": (48, 8)},
    PREFIX: {"read": (8,), "feel": (3, 8), "key": (8, 8)},
    DENOISE_STEP: {"tell": (4, 3), "turn": (3, 3)},
}
_NUMPY = {1: "float32", 9: "bool", 7: "int64"}


def small_graphs(seed: int, batch: Batch) -> dict[str, onnx.ModelProto]:
    """The graph of each part, with weights of its own for each seed."""
    rng = np.random.default_rng(seed)
    size = '"batch"' if batch.dynamic else str(batch.size)
    graphs = {}
    for part, text in _TEXTS.items():
        graph = parser.parse_graph(text.replace("[B", f"[{size}").replace(",B", f",{size}"))
        for name, shape in _WEIGHTS[part].items():
            weight = rng.normal(0, 0.3, shape).astype(np.float32)
            graph.initializer.append(numpy_helper.from_array(weight, name))
        graphs[part] = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9
        )
    return graphs


def with_move(step: onnx.ModelProto, n_steps: int) -> onnx.ModelProto:
    """What the builder adds to the engine of a step."""
    moving = onnx.ModelProto()
    moving.CopyFrom(step)
    graph = moving.graph
    graph.initializer.append(
        numpy_helper.from_array(np.full((1, 1, 1), -1 / n_steps, np.float32), "time_step")
    )
    graph.node.append(helper.make_node("Mul", [VELOCITY, "time_step"], ["move"]))
    graph.node.append(helper.make_node("Add", [NOISY_ACTIONS, "move"], [MOVED_ACTIONS]))
    moved = graph.output.add()
    moved.CopyFrom(graph.output[0])
    moved.name = MOVED_ACTIONS
    return moving


def small_manifest(graphs: dict[str, onnx.ModelProto], batch: Batch, n_steps: int) -> Any:
    """As much of a manifest as running needs."""
    parts = {
        part: Part(_values(model.graph.input), _values(model.graph.output), ())
        for part, model in graphs.items()
    }
    taken = {value.name: value for part in parts.values() for value in part.inputs}
    names = ("images", "image_masks", "tokens", "token_masks", "state")
    shape = taken[NOISY_ACTIONS].shape
    inputs = (*(taken[name] for name in names), Value("noise", "float32", shape))
    return SimpleNamespace(
        parts=parts, batch=batch, policy=SimpleNamespace(n_steps=n_steps),
        chunk=Graph(inputs, (Value(ACTIONS, "float32", shape),)),
        target=TargetFacts("rtx40", "a desktop", "x86_64", 89, "12.6"),
    )  # fmt: skip


def small_inputs(seed: int, n_rows: int) -> dict[str, np.ndarray]:
    """What a chunk is made of."""
    rng = np.random.default_rng(seed)
    return {
        "images": rng.uniform(-1, 1, (n_rows, 2, 3, 4, 4)).astype(np.float32),
        "image_masks": np.ones((n_rows, 2), bool),
        "tokens": rng.integers(0, 9, (n_rows, 5)),
        "token_masks": rng.random((n_rows, 5)) < 0.7,
        "state": rng.normal(size=(n_rows, 3)).astype(np.float32),
        "noise": rng.normal(size=(n_rows, CHUNK_SIZE, ACTION_SIZE)).astype(np.float32),
    }


def _values(entries: Any) -> tuple[Value, ...]:
    return tuple(
        Value(
            entry.name,
            _NUMPY[entry.type.tensor_type.elem_type],
            tuple(dim.dim_value or None for dim in entry.type.tensor_type.shape.dim),
        )
        for entry in entries
    )
