"""Made-up text evaluations and receipts beside a made-up closed-loop run, for tests and for looking
at pages: `python tests/results/made_up_texts.py DIR`. No model read or wrote anything.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from einsort_vla.results.arms import ArmFacts
from einsort_vla.results.measures import Estimate, Measure
from einsort_vla.results.report import Report, write_report
from einsort_vla.results.run import Run, write_run

WORSE = {0.5: 0.0, 0.75: 0.02, 0.875: 0.2, 0.9: 1.5}  # log of the perplexity ratio, by rate
DENSE_BYTES = 269_060_552
MODEL, MODEL_SHA256, POLICY_SHA256 = "smollm2-135m", "cd" * 32, "ab" * 32
RECEIPT = {
    "runtime": "tensorrt", "machine": "aarch64", "board": "Jetson AGX Orin", "python": "3.10.12",
    "time": "2026-11-27 12:00:00 +0000",
    "latency_ms": {name: {"p50": ms, "p95": 1.05 * ms, "p99": 1.1 * ms, "n": 100}
                   for name, ms in (("vision", 3.9), ("prefix", 2.7), ("whole chunk", 13.3))},
    "process_bytes": 512_000_000, "power_w": 21.5, "threads": 1,
}  # fmt: skip


def make_report(
    kind: str = "language", rates: Sequence[float] = tuple(WORSE), **changes: Any
) -> Report:
    """Perplexity and accuracy of a made-up model at these rates."""
    names = {rate: f"curve {rate:g}" for rate in rates}
    arms = [ArmFacts(name="dense", weight_bytes=DENSE_BYTES)] + [
        ArmFacts(name=name, reference="dense", codec="curve", rate_requested=rate,
                 rate_achieved=rate + 0.0003, bits_per_weight=16 * (1 - rate),
                 weight_bytes=round(DENSE_BYTES * (1 - 0.8 * rate)))
        for rate, name in names.items()
    ]  # fmt: skip
    accuracy = _measure("accuracy", "higher", "%", 400, 0.62, names)
    perplexity = _measure("perplexity", "lower", "", 60_000, 17.2, names)
    content: dict[str, Any] = {
        "kind": kind,
        "verdict": f"Up to rate {max(rates, default=0):g} the model reads as it did. Made up.",
        "complete": True,
        "measures": (accuracy,) if kind == "textvqa" else (perplexity, accuracy),
        "arms": tuple(arms),
        "protocol": {"data": "made up", "window": 1024, "stride": 512},
        "notes": ("This is not the TextVQA score: its pictures are made.",) * (kind == "textvqa"),
        "run": make_text_run(kind),
    }
    return Report(**(content | changes))


def make_text_run(kind: str = "language", model: str = MODEL, sha256: str = MODEL_SHA256) -> Run:
    """run.json of a made-up text evaluation."""
    return Run(
        kind=kind, script=f"eval/{kind}.py", model=model, config={"model": model, "rate": "0.5"},
        git_commit=None, python="3.12.1", machine="x86_64, made-up processor",
        versions={"transformers": "5.5.4"}, inputs_sha256={"model": sha256},
    )  # fmt: skip


def _measure(
    name: str, better: Any, unit: str, n: int, dense: float, names: Mapping[float, str]
) -> Measure:
    is_share = unit == "%"
    values = {rate: dense * (1 - WORSE[rate] / 4) if is_share else dense * 2.718 ** WORSE[rate]
              for rate in names}  # fmt: skip
    width = 0.04 if is_share else 0.03 * dense
    changes = {rate: value - dense if is_share else value / dense for rate, value in values.items()}
    return Measure(
        name, better, "questions" if is_share else "tokens",
        {"dense": _estimate(dense, width, n)}
        | {names[rate]: _estimate(value, width, n) for rate, value in values.items()},
        {names[rate]: _estimate(change, 0.01, n) for rate, change in changes.items()},
        "difference" if is_share else "ratio",
        "Bootstrap over questions." if is_share else "Bootstrap over windows.", unit,
    )  # fmt: skip


def _estimate(value: float, width: float, n: int) -> Estimate:
    return Estimate(value, value - width, value + width, n)


def write_text_run(
    folder: Path, report: Report | None, model: str = MODEL, sha256: str = MODEL_SHA256
) -> Path:
    """The folder of a text evaluation; without a report, of one that has just begun."""
    folder.mkdir(parents=True)
    run = make_text_run(report.kind if report else "language", model, sha256)
    write_run(folder, run)
    if report:
        write_report(replace(report, run=run), folder)
    return folder


def write_receipt(folder: Path, weights_sha256: str | None, **changes: Any) -> Path:
    """A bundle's folder with a receipt of `bench`, and a manifest that says what was exported."""
    (folder / "engines").mkdir(parents=True)
    source = {"weights_sha256": weights_sha256, "rate": 0.5}
    if weights_sha256:
        (folder / "manifest.json").write_text(json.dumps({"source": source}), encoding="utf-8")
    path = folder / "engines" / "bench-tensorrt.json"
    path.write_text(json.dumps({**RECEIPT, **changes}), encoding="utf-8")
    return path


def keep_policies(run: Path, weights: Mapping[str, str]) -> None:
    """Manifests of compressed policies, by the names of their folders."""
    for name, sha256 in weights.items():
        (run / "policies" / name).mkdir(parents=True)
        content = {"files": {"model.safetensors": sha256}}
        (run / "policies" / name / "einsort_manifest.json").write_text(json.dumps(content))


if __name__ == "__main__":
    import made_up  # beside this file

    top, made = Path(sys.argv[1]), made_up.make_run(25, delays=(0.0,))
    made_up.write_run(top / "libero", made, made_up.make_records(made))
    keep_policies(top / "libero", {"curve-0.5": "11" * 32, "curve-0.75": "22" * 32})
    write_text_run(top / "language", make_report())
    write_text_run(top / "textvqa", make_report("textvqa", (0.5, 0.75), complete=False))
    write_text_run(top / "textvqa-begun", None)
    write_receipt(top / "orin-bundle", "11" * 32)
