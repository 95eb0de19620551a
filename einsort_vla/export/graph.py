"""A part as an ONNX model: traced, its nodes named, the meaning of its operators put in."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import onnx_ir as ir
import torch

from einsort_vla.export.functions import OPSET
from einsort_vla.export.linear import DOMAIN, OPERATOR, ROTATION, VERSION, WORDS_INPUT
from einsort_vla.families import Part
from einsort_vla.runtime.manifest import MAX_BATCH


def trace(part: Part, dynamic_batch: bool = False) -> ir.Model:
    """The graph of a part; its weights stay in memory, shared with the module.

    Args:
        part: what is traced.
        dynamic_batch: leave the batch open instead of that of the example inputs.
    """
    axes = [part.batch_axis.get(name, 0) for name in part.inputs]
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    shapes = tuple({axis: batch} for axis in axes) if dynamic_batch else None
    with _quiet():
        program = torch.onnx.export(
            part.module.eval(), tuple(part.inputs.values()), dynamo=True, opset_version=OPSET,
            input_names=list(part.inputs), output_names=list(part.outputs),
            dynamic_shapes=shapes, verbose=False,
        )  # fmt: skip
    assert program is not None
    model = program.model
    _name_nodes(model)
    _share_rotations(model)
    model.opset_imports[DOMAIN] = VERSION
    return model


def linear_nodes(model: ir.Model) -> list[ir.Node]:
    """Its `MatmulCurve` nodes, in order."""
    return [n for n in model.graph if n.domain == DOMAIN and n.op_type == OPERATOR]


def _name_nodes(model: ir.Model) -> None:
    """Give each operator the path of its layer; a layer that runs more than once, a number too."""
    counts: dict[str, int] = {}
    for node in linear_nodes(model):
        words = node.inputs[WORDS_INPUT]
        assert words is not None
        assert words.name is not None
        path = words.name.removesuffix(".words")
        counts[path] = counts.get(path, 0) + 1
        node.name = path if counts[path] == 1 else f"{path}#{counts[path]}"


def _share_rotations(model: ir.Model) -> None:
    """Turn once what several layers read; ONNX Runtime merges no nodes that it does not know."""
    turned: dict[tuple[int, ...], ir.Node] = {}
    for node in [n for n in model.graph if n.domain == DOMAIN and n.op_type == ROTATION]:
        first = turned.setdefault(tuple(map(id, node.inputs)), node)
        if first is not node:
            ir.convenience.replace_all_uses_with(node.outputs[0], first.outputs[0])
            model.graph.remove(node, safe=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)
