"""Rate, distortion and speed of every codec form, on the same weights in the same run.

python benchmarks/bench_codec.py --quick --json out.json --png out.png
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: the root of the checkout, for `policies`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from safetensors import safe_open
from torch import Tensor

from einsort_vla.checkpoint import WEIGHTS, compressible_shapes
from einsort_vla.cli.run import run_command
from einsort_vla.codec import CodecSpec, Leader, Lossless, Network, Scalar, decode, encode
from einsort_vla.errors import UsageError
from einsort_vla.plan import InputStatistics

REFERENCE_POLICY = Path(__file__).parents[1] / "policies/checkpoints/reference-libero"


@dataclass(frozen=True)
class Settings:
    """Measure all codec forms; one JSON row for each source, form and spec."""

    json: Path | None = None
    """File for the rows."""
    png: Path | None = None
    """File for the picture of error over bits, with the Gaussian bound."""
    quick: bool = False
    """A quarter of the weights."""
    calibration: Path | None = None
    """File of eval/calibrate.py: adds output errors with and without error feedback."""


@dataclass(frozen=True)
class Source:
    """Named matrices, coded one by one and judged together."""

    name: str
    weights: dict[str, Tensor]


def main(settings: Settings, console: Console) -> int:
    """Print the table, write what was asked for."""
    for file in (settings.json, settings.png):
        if file is not None and file.exists():
            raise UsageError(f"{file} exists already; nothing was written over.")
    encode(torch.randn(8, 8), Leader(2, 2, 6))  # compiles the search outside of the timings
    rows: list[dict[str, Any]] = []
    jobs = [(source, spec) for source in _sources(settings.quick) for spec in _specs(source)]
    for source, spec in track(jobs, description="coding", console=console):
        rows.append(_measure(source, spec))
    if settings.calibration:
        rows += _with_feedback(InputStatistics.load(settings.calibration), console)
    _print(rows, console)
    if settings.json:
        settings.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    if settings.png:
        _draw(rows, settings.png)
    return 0


def _sources(quick: bool) -> Iterator[Source]:
    side = 512 if quick else 1024
    generator = torch.Generator().manual_seed(20_000)  # not the seed of any training data
    yield Source("gaussian", {"gaussian": torch.randn(side, side, generator=generator)})
    uniform = torch.rand(side, side, generator=generator) - 0.5
    laplacian = -uniform.sign() * (1 - 2 * uniform.abs()).clamp_min(1e-12).log()
    yield Source("laplacian", {"laplacian": laplacian})
    names = list(compressible_shapes(REFERENCE_POLICY))
    yield Source("reference policy", _load(names[:: 8 if quick else 2]))


def _load(names: list[str]) -> dict[str, Tensor]:
    with safe_open(REFERENCE_POLICY / WEIGHTS, framework="pt") as file:
        return {name: file.get_tensor(name) for name in names}


def _specs(source: Source) -> list[CodecSpec]:
    specs: list[CodecSpec] = [*Leader.menu(), Scalar(4, 64, "nf4"), Scalar(8, 128)]
    for bits in (2, 3, 4):
        specs += [Scalar(bits, 128), Scalar(bits, 128, "asymmetric")]
        specs += [Scalar(bits, 128, "asymmetric", clip=True)]
    specs += [Network(rank, slices=8) for rank in (4, 16, 48)]
    specs += [Network(rank, scope="none") for rank in (4, 16, 48)]  # signs split, nothing sorted
    if all(Lossless.menu(weight) for weight in source.weights.values()):
        specs.append(Lossless(0))  # stands for the spec that fits each matrix
    return specs


def _measure(source: Source, spec: CodecSpec) -> dict[str, Any]:
    """One row; errors and bits are sums over the source's matrices."""
    bits = error = energy = encode_s = decode_s = 0.0
    for stored in source.weights.values():
        own = Lossless.menu(stored)[0] if spec.form == "lossless" else spec
        started = time.perf_counter()
        compressed = encode(stored, own)
        encoded = time.perf_counter()
        missing = stored.float() - decode(compressed)
        decode_s += time.perf_counter() - encoded
        encode_s += encoded - started
        bits += compressed.stored_bits
        error += float(missing.square().sum())
        energy += float(stored.float().square().sum())
    n = sum(weight.numel() for weight in source.weights.values())
    relative = error / energy
    return {
        "source": source.name,
        "form": spec.form,
        "spec": "lossless" if spec.form == "lossless" else str(spec),
        "bits": bits / n,
        "relative_mse": relative,
        "gap_db": 10 * math.log10(relative * 4 ** (bits / n)) if relative else None,
        "encode_mweights_per_s": n / encode_s / 1e6,
        "decode_mweights_per_s": n / decode_s / 1e6,
    }


def _with_feedback(statistics: InputStatistics, console: Console) -> list[dict[str, Any]]:
    """Output error under the Hessian, with and without feedback, mean over layers."""
    weights = _load(list(compressible_shapes(REFERENCE_POLICY)))
    specs: list[CodecSpec] = [
        Leader(2, 2, 6), Leader(2, 4, 4), Leader(2, 1, 7),
        Scalar(2, 128, "asymmetric", clip=True), Scalar(3, 128, "asymmetric", clip=True),
    ]  # fmt: skip
    rows = []
    for spec in track(specs, description="feedback", console=console):
        for is_fed in (False, True):
            rows.append(_output_error(weights, spec, statistics, is_fed))
    return rows


def _output_error(
    weights: dict[str, Tensor], spec: CodecSpec, statistics: InputStatistics, is_fed: bool
) -> dict[str, Any]:
    bits = encode_s = 0.0
    logs, missing_energy, energy = [], 0.0, 0.0
    for name, weight in weights.items():
        hessian, dense = statistics.hessian(name), weight.float()
        started = time.perf_counter()
        compressed = encode(weight, spec, hessian if is_fed else None)
        encode_s += time.perf_counter() - started
        missing = dense - decode(compressed)
        relative = ((missing @ hessian) * missing).sum() / ((dense @ hessian) * dense).sum()
        logs.append(math.log10(float(relative)))
        bits += compressed.stored_bits
        missing_energy += float(missing.square().sum())
        energy += float(dense.square().sum())
    n = sum(weight.numel() for weight in weights.values())
    return {
        "source": "reference policy, calibrated",
        "form": f"{spec.form} with feedback" if is_fed else spec.form,
        "spec": str(spec),
        "bits": bits / n,
        "relative_mse": missing_energy / energy,
        "gap_db": None,
        "output_error_db": 10 * sum(logs) / len(logs),
        "encode_mweights_per_s": n / encode_s / 1e6,
        "decode_mweights_per_s": None,
    }


def _print(rows: list[dict[str, Any]], console: Console) -> None:
    for source in dict.fromkeys(row["source"] for row in rows):
        table = Table("code", "bits", "relative MSE", "gap, dB", "output error, dB",
                      "coded, M/s", "decoded, M/s", title=source)  # fmt: skip
        own = [row for row in rows if row["source"] == source]
        for row in sorted(own, key=lambda row: row["bits"]):
            label = row["spec"] + (", feedback" if "feedback" in row["form"] else "")
            table.add_row(
                label, f"{row['bits']:.3f}", f"{row['relative_mse']:.2e}",
                _number(row["gap_db"]), _number(row.get("output_error_db")),
                _number(row["encode_mweights_per_s"]), _number(row["decode_mweights_per_s"]),
            )  # fmt: skip
        console.print(table)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _draw(rows: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
    bits = torch.linspace(1, 10, 50)
    axes.plot(bits, 10 * torch.log10(4.0**-bits), "k", label="bound, Gaussian source")
    gaussian = [row for row in rows if row["source"] == "gaussian" and row["relative_mse"]]
    for form, marker in (("leader", "o"), ("scalar", "s"), ("network", "^")):
        own = [row for row in gaussian if row["form"] == form and row["bits"] < 10]
        error = [10 * math.log10(row["relative_mse"]) for row in own]
        axes.plot([row["bits"] for row in own], error, marker, label=form)
    axes.set(xlabel="bits a weight, everything counted", ylabel="relative error, dB",
             title="i.i.d. Gaussian weights")  # fmt: skip
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    run_command(Settings, main, "benchmarks/bench_codec.py")
