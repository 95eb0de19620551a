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
from dataclasses import dataclass, replace
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.feedback import SPECS, compare, minilm_statistics, policy_weights
from benchmarks.timing import device_name
from benchmarks.weights import Source, load_sources
from einsort_vla.cli.run import run_command
from einsort_vla.codec import (
    CodecSpec,
    Curve,
    Lossless,
    Network,
    Scalar,
    decode,
    encode,
)
from einsort_vla.codec.curve.values import CURVE_EIGHTHS, DEFAULT_WINDOW, GRIDS, POLYNOMIALS
from einsort_vla.errors import UsageError
from einsort_vla.plan import LayerStatistics

LIMIT, QUICK_LIMIT = 8_000_000, 800_000  # weights of each real source
BITS = (1, 1.5, 2, 3, 4, 5)
MOST_DB = {  # what the curve may lie above the bound on Gaussian weights, everything counted
    "the default window": {1: 0.75, 1.5: 0.75, 2: 0.75, 3: 1.1, 4: 1.55},
    "the best window": {1: 0.55, 1.5: 0.6, 2: 0.55, 3: 0.65, 4: 0.8, 5: 1.1},
}


@dataclass(frozen=True)
class Settings:
    """Measure all codec forms; one JSON row for each source, form and spec."""

    json: Path | None = None
    """File for the rows."""
    png: Path | None = None
    """File for the picture of error over bits, with the Gaussian bound."""
    quick: bool = False
    """Fewer weights of each model and fewer codes: minutes instead of an hour."""
    calibration: Path | None = None
    """File of eval/calibrate.py: adds the reference policy's output errors (judged on the inputs
    they were calibrated on)."""


def main(settings: Settings, console: Console) -> int:
    """Print the table, write what was asked for; 1 if a gap is larger than it may be."""
    for file in (settings.json, settings.png):
        if file is not None and file.exists():
            raise UsageError(f"{file} exists already; nothing was written over.")
    encode(torch.randn(8, 8), Curve(2.0))  # compiles the search outside of the timings
    sources = load_sources(QUICK_LIMIT if settings.quick else LIMIT, console.print)
    jobs = [(source, spec) for source in sources for spec in _specs(source, settings.quick)]
    rows: list[dict[str, Any]] = []
    with Progress(console=console) as progress:
        task = progress.add_task("coding", total=len(jobs))
        for source, spec in jobs:
            rows.append(_measure(source, spec))
            progress.advance(task)
        rows += _with_feedback(settings.calibration, progress)
    _print(rows, console)
    musts = _musts(rows)
    for must in musts:
        console.print(
            "{what}, {bits:g} bits: {found_db:.3f} dB, at most {most_db:g}".format(**must)
        )
    if settings.json:
        content = {"processor": _processor(), "rows": rows, "musts": musts}
        settings.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if settings.png:
        _draw(rows, settings.png)
    return int(not all(must["holds"] for must in musts))


def _processor() -> str:
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{device_name('cpu')}, {capability}, {torch.get_num_threads()} threads"


def _musts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`MOST_DB` beside what was found."""
    gaps: dict[float, dict[int, float]] = {}
    for row in rows:
        if row["source"] == "gaussian" and row["form"] == "curve" and "rotated" not in row["spec"]:
            spec = row["parameters"]
            gaps.setdefault(spec["bits"], {})[spec["window"]] = row["gap_db"]
    musts = []
    for what, most in MOST_DB.items():
        for bits, most_db in most.items():
            own = gaps[bits]
            found = own[DEFAULT_WINDOW] if "default" in what else min(own.values())
            must = {"what": what, "bits": bits, "found_db": found, "most_db": most_db}
            musts.append({**must, "holds": found <= most_db})
    return musts


def _specs(source: Source, quick: bool) -> list[CodecSpec]:
    bits = BITS if quick else [k / 8 for k in CURVE_EIGHTHS]
    windows = POLYNOMIALS if source.name == "gaussian" else (DEFAULT_WINDOW,)
    specs: list[CodecSpec] = [Curve(own, window) for own in bits for window in windows]
    specs += [Curve(own, own) for own in GRIDS]
    specs += [Curve(own, rotated=True) for own in (2, 3, 4)]
    specs += [Scalar(4, 64, "nf4"), Scalar(8, 128)]
    for own in (2, 3, 4):
        specs += [Scalar(own, 128), Scalar(own, 128, "asymmetric")]
        specs += [Scalar(own, 128, "asymmetric", clip=True)]
    ranks = (16,) if quick else (4, 16, 48)
    specs += [Network(rank, slices=8) for rank in ranks]
    specs += [Network(rank, scope="none") for rank in ranks]  # signs split, nothing sorted
    plain = Network(1, scope="none", sign_split=False, is_gauged=False)
    specs += [replace(plain, rank=rank) for rank in ranks]  # SVD
    specs += [replace(plain, rank=rank, is_gauged=True) for rank in ranks]
    specs += [replace(plain, rank=rank, decomposition="tt") for rank in ranks]  # TT-LLM
    if all(Lossless.menu(weight) for weight in source.weights.values()):
        specs.append(Lossless(1))  # stands for the spec that fits each matrix
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
        "parameters": spec.as_dict(),
        "bits": bits / n,
        "relative_mse": relative,
        "gap_db": 10 * math.log10(relative * 4 ** (bits / n)) if relative else None,
        "encode_mweights_per_s": n / encode_s / 1e6,
        "decode_mweights_per_s": n / decode_s / 1e6,
    }


def _with_feedback(calibration: Path | None, progress: Progress) -> list[dict[str, Any]]:
    """Output errors of MiniLM, where its package is installed, and of the reference policy."""
    rows: list[dict[str, Any]] = []
    task = progress.add_task("error feedback", total=2 * len(SPECS) * (2 if calibration else 1))
    try:
        fitted, judged, weights = minilm_statistics()
        rows += compare(
            "MiniLM, held-out text", weights, fitted, judged, lambda: progress.advance(task)
        )
    except ModuleNotFoundError as error:
        progress.console.print(f"no error feedback on MiniLM: {error.name} is not installed.")
    if calibration:
        statistics = LayerStatistics.load(calibration)
        weights = policy_weights(statistics)
        rows += compare(
            "reference policy, calibration inputs", weights, statistics, statistics,
            lambda: progress.advance(task),
        )  # fmt: skip
    return rows


def _print(rows: list[dict[str, Any]], console: Console) -> None:
    for source in dict.fromkeys(row["source"] for row in rows):
        table = Table("code", "bits", "relative MSE", "gap, dB", "output error, dB",
                      "coded, M/s", "decoded, M/s", title=source)  # fmt: skip
        own = [row for row in rows if row["source"] == source]
        for row in sorted(own, key=lambda row: row["bits"]):
            table.add_row(
                row["spec"], f"{row['bits']:.3f}", f"{row['relative_mse']:.2e}",
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
    for form, marker in (("curve", "."), ("scalar", "s"), ("network", "^")):
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
