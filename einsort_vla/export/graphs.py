"""All graphs of a policy, written into one folder around one file of weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import torch
from onnx import ModelProto, TensorProto

from einsort_vla.export.chunk import unrolled
from einsort_vla.export.functions import function_bodies
from einsort_vla.export.graph import linear_nodes, trace
from einsort_vla.export.linear import (
    SCALE_INPUT,
    WORDS_INPUT,
    ExportedLinear,
    replace_linears_,
)
from einsort_vla.export.targets import GraphOptions
from einsort_vla.export.weights import WeightFile
from einsort_vla.families import Part, export_of
from einsort_vla.lerobot import LoadedPolicy
from einsort_vla.runtime.manifest import CHUNK, WEIGHT_FILE

_NUMPY_NAMES = {
    TensorProto.FLOAT: "float32", TensorProto.BOOL: "bool", TensorProto.INT64: "int64",
}  # fmt: skip


def write_graphs(
    load: Callable[[], LoadedPolicy],
    folder: Path,
    options: GraphOptions,
    precision: str | None,
    on_progress: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Write the graphs of a policy for ONNX Runtime, and their twins for engines.

    Args:
        load: gives the policy, anew each time; it is changed.
        folder: where to; it must be there, without such files.
        options: batch and precision.
        precision: what engines are to compute in; None writes no twins.
        on_progress: is called after each graph.

    Returns:
        The manifest's `parts` and `chunk`: inputs, outputs, layers and bytes.
    """
    models: dict[str, ModelProto] = {}
    described: dict[str, Any] = {}
    with WeightFile(folder / WEIGHT_FILE) as weights:
        policy, parts = _parts(load(), options, torch.float32)
        for part in parts:
            model = _trace(part, options, weights)
            models[part.name] = ir.to_proto(model)
            described[part.name] = _describe(models[part.name]) | {"layers": _layers(part, model)}
            on_progress()
        config = policy.module.config
        models[CHUNK] = unrolled(models, export_of(config.type).n_steps(config))
        chunk = _describe(models[CHUNK])
        for name, model in models.items():
            model.functions.extend(function_bodies())
            onnx.save(model, folder / f"{name}.onnx")
        del policy, parts, models
        if precision is not None:
            # Engines have no plugin for rotations, and fuse plain products.
            _, parts = _parts(load(), options, getattr(torch, precision), has_rotation_nodes=False)
            for part in parts:
                model = _trace(part, options, weights)
                described[part.name]["engine_bytes_needed"] = _bytes_needed(part, model)
                onnx.save(ir.to_proto(model), folder / f"{part.name}.engine.onnx")
                on_progress()
    return {"parts": described, "chunk": chunk}


def _parts(
    policy: LoadedPolicy,
    options: GraphOptions,
    dtype: torch.dtype,
    has_rotation_nodes: bool = True,
) -> tuple[LoadedPolicy, list[Part]]:
    export = export_of(policy.module.config.type)
    export.set_precision(policy.module, dtype)
    replace_linears_(policy.module, has_rotation_nodes)
    return policy, export.parts(policy.module, options.batch)


def _trace(part: Part, options: GraphOptions, weights: WeightFile) -> ir.Model:
    model = trace(part, options.dynamic_batch)
    weights.take_(model)
    return model


def _describe(model: ModelProto) -> dict[str, Any]:
    """Inputs and outputs with numpy's names of types; an open batch is None."""

    def values(entries: Any) -> list[dict[str, Any]]:
        return [
            {
                "name": value.name,
                "dtype": _NUMPY_NAMES[value.type.tensor_type.elem_type],
                "shape": [dim.dim_value or None for dim in value.type.tensor_type.shape.dim],
            }
            for value in entries
        ]

    return {"inputs": values(model.graph.input), "outputs": values(model.graph.output)}


def _layers(part: Part, model: ir.Model) -> list[dict[str, Any]]:
    """The coded layers of a part: what was asked for, and what it takes."""
    found: dict[str, dict[str, Any]] = {}
    for node in linear_nodes(model):
        path = (node.name or "").partition("#")[0]
        if path in found:
            found[path]["nodes"] += 1
            continue
        layer = part.module.get_submodule(path)
        assert isinstance(layer, ExportedLinear)
        found[path] = {
            "name": path, "spec": str(layer.spec), "bits_per_weight": layer.spec.bits,
            "shape": [layer.out_features, layer.in_features], "bytes": _coded_bytes(layer),
            "streams": list(filter(None, map(_place, node.inputs[WORDS_INPUT:SCALE_INPUT + 1]))),
            "nodes": 1,
        }  # fmt: skip
    return list(found.values())


def _place(value: ir.Value | None) -> list[int] | None:
    """Offset and bytes in the file of weights; None for what is small enough for the graph."""
    tensor = value.const_value if value is not None else None
    return [tensor.offset or 0, tensor.nbytes] if isinstance(tensor, ir.ExternalTensor) else None


def _coded_bytes(layer: ExportedLinear) -> int:
    return sum(tensor.nbytes for tensor in (layer.words, layer.scale))


def _bytes_needed(part: Part, model: ir.Model) -> dict[str, int]:
    """What an engine must hold: coded streams, and all other weights in the graph's types."""
    coded = sum(layer["bytes"] for layer in _layers(part, model))
    tensors = [value.const_value for value in model.graph.initializers.values()]
    return {"coded": coded, "other": sum(t.nbytes for t in tensors if t is not None) - coded}
