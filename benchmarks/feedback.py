"""Error feedback on real layers and inputs: the curve code beside GPTQ, held-out output error."""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.weights import load_policy, minilm_folder
from einsort_vla.codec import CodecSpec, Curve, Scalar, decode, encode
from einsort_vla.plan import LayerStatistics

DOCS = Path(__file__).parents[1]
TOKENS = 128  # of a text segment

GPTQ = {bits: Scalar(bits, 128, "asymmetric", clip=True) for bits in (2, 3)}
"""The rival: error feedback, groups of 128, clipping searched; groups cost a quarter of a bit."""
SPECS: tuple[CodecSpec, ...] = (
    Curve(2.25), Curve(2.25, rotated=True), GPTQ[2],
    Curve(3.25), Curve(3.25, rotated=True), GPTQ[3],
)  # fmt: skip


def minilm_statistics() -> tuple[LayerStatistics, LayerStatistics, dict[str, Tensor]]:
    """Inputs of MiniLM's layers on this repository's documentation: one half to calibrate on, the
    other to be judged on; and the weights.

    Raises:
        ModuleNotFoundError: the model's package is not installed.
    """
    from transformers import AutoModel, AutoTokenizer

    folder = minilm_folder()
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    files = [DOCS / "README.md", *sorted((DOCS / "docs").glob("*.md"))]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    tokens = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"][0]
    segments = tokens[: len(tokens) // TOKENS * TOKENS].view(-1, TOKENS)
    names = [n for n, p in model.named_parameters() if "encoder.layer" in n and p.ndim == 2]
    layers = {name: model.get_submodule(name.removesuffix(".weight")) for name in names}
    halves = (LayerStatistics(""), LayerStatistics(""))
    for half, statistics in enumerate(halves):
        with torch.inference_mode(), statistics.observing(layers):
            model(input_ids=segments[half::2])
    weights = {name: model.get_parameter(name).detach() for name in names}
    return *halves, weights


def compare(
    source: str,
    weights: Mapping[str, Tensor],
    calibration: LayerStatistics,
    judged: LayerStatistics,
    on_progress: Callable[[], None] = lambda: None,
) -> list[dict[str, Any]]:
    """A row a code, with and without feedback: output error in dB, geometric mean over layers."""
    rows = []
    for spec in SPECS:
        for is_fed in (False, True):
            rows.append(_row(source, weights, spec, calibration if is_fed else None, judged))
            on_progress()
    return rows


def policy_weights(statistics: LayerStatistics) -> dict[str, Tensor]:
    """The reference policy's matrices that were watched."""
    return {n: weight for n, weight in load_policy().items() if n in statistics.second_moments}


def _row(
    source: str,
    weights: Mapping[str, Tensor],
    spec: CodecSpec,
    calibration: LayerStatistics | None,
    judged: LayerStatistics,
) -> dict[str, Any]:
    bits = encode_s = error = energy = 0.0
    logs = []
    for name, stored in weights.items():
        moments, dense = judged.hessian(name).inputs, stored.float()
        started = time.perf_counter()
        coded = encode(stored, spec, calibration.hessian(name) if calibration else None)
        encode_s += time.perf_counter() - started
        missing = dense - decode(coded)
        relative = ((missing @ moments) * missing).sum() / ((dense @ moments) * dense).sum()
        logs.append(math.log10(float(relative)))
        bits += coded.stored_bits
        error += float(missing.square().sum())
        energy += float(dense.square().sum())
    n = sum(weight.numel() for weight in weights.values())
    return {
        "source": source,
        "form": spec.form,
        "spec": f"{spec}, feedback" if calibration else str(spec),
        "bits": bits / n,
        "relative_mse": error / energy,
        "gap_db": None,
        "output_error_db": 10 * sum(logs) / len(logs),
        "encode_mweights_per_s": n / encode_s / 1e6,
        "decode_mweights_per_s": None,
    }
