"""Exported bundles: graphs as small as can be, written by hand in the form that `export` writes."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

from einsort_vla.cli.bundle import Audit
from einsort_vla.cli.verify import Verify
from einsort_vla.codec import Curve, decode, encode
from einsort_vla.errors import EinSortError
from einsort_vla.export.functions import OPSET, function_bodies
from einsort_vla.export.linear import DOMAIN, OPERATOR, VERSION, in_pairs
from einsort_vla.native_library import native_library
from einsort_vla.runtime.bundle import write_sums
from tests.fuzz.change import Target
from tests.fuzz.kinds.kind import Kind
from tests.fuzz.signing import sign_sums

N, STEPS = 8, 2
SPEC = Curve(2.5)


class _Graphs:
    """Writes graphs around one file of weights."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data = folder, b""
        folder.mkdir()

    def external(self, name: str, array: np.ndarray) -> TensorProto:
        tensor = numpy_helper.from_array(array, name)
        place = {"location": "weights.bin", "offset": len(self.data), "length": array.nbytes}
        self.data += array.tobytes()
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
        return tensor

    def write(
        self, name: str, inputs: dict[str, list[int]], output: tuple[str, list[int]],
        nodes: list[Any], weights: list[TensorProto],
    ) -> dict[str, Any]:  # fmt: skip
        values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()]
        out = helper.make_tensor_value_info(output[0], TensorProto.FLOAT, output[1])
        graph = helper.make_graph(nodes, name, values, [out], weights)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, VERSION)]
        model = helper.make_model(graph, opset_imports=opsets, functions=function_bodies())
        model.ir_version = 10
        onnx.save(model, self.folder / f"{name}.onnx")
        (self.folder / "weights.bin").write_bytes(self.data)

        def describe(n: str, shape: list[int]) -> dict[str, Any]:
            return {"name": n, "dtype": "float32", "shape": shape}

        return {"inputs": [describe(n, s) for n, s in inputs.items()],
                "outputs": [describe(*output)], "layers": []}  # fmt: skip


def make_bundle(folder: Path) -> None:
    native_library()  # compiled before anything is watched
    graphs = _Graphs(folder / "graphs")
    generator = torch.Generator().manual_seed(0)
    coded = encode(torch.randn(N, N, generator=generator), SPEC)
    words = in_pairs(coded.parts["words"]).numpy()
    streams = [[len(graphs.data), words.nbytes]]
    scale = coded.parts["scale"].numpy().view(np.int8)
    weights = [graphs.external("words", words), numpy_helper.from_array(scale, "scale")]
    node = helper.make_node(
        OPERATOR, ["images", "words", "scale"], ["image_embeddings"], name="vision.layer",
        domain=DOMAIN, out_features=N, in_features=N, eighths=SPEC.eighths, window=SPEC.window,
        unit=float(coded.parts["unit"]),
    )  # fmt: skip
    shape = [1, N]
    parts = {
        "vision": graphs.write("vision", {"images": shape}, ("image_embeddings", shape), [node],
                               weights),
        "prefix": graphs.write(
            "prefix", {"image_embeddings": shape, "state": shape}, ("keys", shape),
            [helper.make_node("Add", ["image_embeddings", "state"], ["keys"])], [],
        ),
        "denoise_step": graphs.write(
            "denoise_step", {"keys": shape, "noisy_actions": [1, 2, N], "time": [1]},
            ("velocity", [1, 2, N]),
            [helper.make_node("Mul", ["noisy_actions", "keys"], ["scaled"]),
             helper.make_node("Add", ["scaled", "time"], ["velocity"])], [],
        ),
    }  # fmt: skip
    layer = {"name": "vision.layer", "spec": str(SPEC), "bits_per_weight": 2.5, "shape": [N, N],
             "bytes": words.nbytes + N, "streams": streams, "nodes": 1}  # fmt: skip
    parts["vision"]["layers"] = [layer]
    chunk = graphs.write(
        "chunk", {"images": shape, "state": shape, "noise": [1, 2, N]}, ("actions", [1, 2, N]),
        [helper.make_node("Mul", ["noise", "state"], ["scaled"]),
         helper.make_node("Add", ["scaled", "images"], ["actions"])], [],
    )  # fmt: skip
    del chunk["layers"]
    manifest = {
        "source": {"weights_sha256": "ab" * 32, "rate": 0.75, "kept_without_error": []},
        "policy": {
            "type": "smolvla", "n_steps": STEPS, "action_size": 7, "chunk_size": 2,
            "n_action_steps": 2, "cameras": ["observation.images.cam"], "image_range": [-1.0, 1.0],
            "tokenizer_max_length": 12, "state_size": N,
            "normalization": {"action": {"mean": [0.0] * 7, "std": [1.0] * 7}},
        },
        "format": "einsort-bundle", "version": 2,
        "target": {"name": "cpu", "what": "any", "machine": None, "compute_capability": None,
                   "cuda": None},
        "batch": {"size": 1, "dynamic": False},
        "precision": {"onnx": "float32", "engines": None, "sums": "float32", "flow": "float32"},
        "versions": {"python": "3.12.1"}, "parts": parts, "chunk": chunk,
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))
    _write_samples(folder)
    write_sums(folder)


def _write_samples(folder: Path) -> None:
    """Looks, with the actions of these graphs computed by numpy's own way through them."""
    rng = np.random.default_rng(0)
    generator = torch.Generator().manual_seed(0)
    weight = decode(encode(torch.randn(N, N, generator=generator), SPEC)).numpy()
    shown = {n: rng.normal(size=s).astype(np.float32)
             for n, s in (("images", (2, N)), ("state", (2, N)), ("noise", (2, 2, N)))}  # fmt: skip
    keys, actions = shown["images"] @ weight.T + shown["state"], shown["noise"]
    for k in range(STEPS):
        time = np.float32(1 - k / STEPS)
        actions = actions - (actions * keys[:, None] + time) / STEPS
    np.savez(folder / "samples.npz", **shown, actions=actions.astype(np.float32))


class Failed(EinSortError):
    """A command said that the bundle is not what it must be."""


def open_and_run(folder: Path, out: Path) -> Any:
    """What `einsort-vla verify` and `audit` say."""
    said = io.StringIO()
    console = Console(file=said, width=200)
    codes = Verify(folder, runtime="onnx").run(console), Audit(folder).run(console)
    if any(codes):
        raise Failed(f"{folder}: {said.getvalue()}")
    return said.getvalue()


# What another maker may have exported: other sizes of another policy.
OWN = ("*.source*", "*.policy.*", "*.versions*", "*.target*", "*.layers*", "*.precision.*",
       "*.chunk.*", "*.batch.*")  # fmt: skip
KINDS = (
    Kind("bundle", make_bundle, open_and_run, (
        Target("manifest.json", "json", 5, OWN, OWN),
        Target("SHA256SUMS", "opaque", 1),
        Target("samples.npz", "npz", 3),
        Target("graphs/*.onnx", "opaque", 1.5, has_free_bytes=True),
        Target("graphs/weights.bin", "opaque", 0.7, has_free_bytes=True),
    ), 2.5, sign_sums),
)  # fmt: skip
