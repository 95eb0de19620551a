"""Made-up text evaluations and receipts beside a made-up closed-loop run, for tests and for looking
at pages: `python tests/results/made_up_texts.py DIR`. No model read or wrote anything.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from einsort_vla.results.measures import Estimate, Findings, Measure, write_findings

WORSE = {0.5: 0.0, 0.75: 0.02, 0.875: 0.2, 0.9: 1.5}  # log of the perplexity ratio, by rate
MODEL, MODEL_SHA256, POLICY_SHA256 = "smollm2-135m", "cd" * 32, "ab" * 32
RECEIPT = {
    "runtime": "tensorrt", "machine": "aarch64", "board": "Jetson AGX Orin", "python": "3.10.12",
    "time": "2026-11-27 12:00:00 +0000",
    "latency_ms": {name: {"p50": ms, "p95": 1.05 * ms, "p99": 1.1 * ms, "n": 100}
                   for name, ms in (("vision", 3.9), ("prefix", 2.7), ("whole chunk", 13.3))},
    "process_bytes": 512_000_000, "power_w": 21.5, "threads": 1,
}  # fmt: skip


def make_findings(
    kind: str = "language", rates: Sequence[float] = tuple(WORSE), **changes: Any
) -> Findings:
    """Perplexity and accuracy of a made-up model at these rates."""
    names = {rate: f"leader {rate:g}" for rate in rates}
    arms = {"dense": {"codec": None, "rate_requested": 0.0, "weight_bytes": 269_060_552,
                      "compression": None}}  # fmt: skip
    for rate, name in names.items():
        size = {"rate_achieved": rate + 0.0003, "bits_per_weight": 16 * (1 - rate)}
        arms[name] = {"codec": "leader", "rate_requested": rate, "compression": size,
                      "weight_bytes": round(269_060_552 * (1 - 0.8 * rate))}  # fmt: skip
    accuracy = _measure("accuracy", "higher", "%", 400, 0.62, names)
    perplexity = _measure("perplexity", "lower", "", 60_000, 17.2, names)
    content: dict[str, Any] = {
        "kind": kind,
        "verdict": f"Up to rate {max(rates, default=0):g} the model reads as it did. Made up.",
        "complete": True,
        "measures": (accuracy,) if kind == "textvqa" else (perplexity, accuracy),
        "arms": arms,
        "protocol": {"data": "made up", "window": 1024, "stride": 512},
        "notes": ("This is not the TextVQA score: its pictures are made.",) * (kind == "textvqa"),
        "provenance": {"machine": "x86_64, made-up processor", "transformers": "5.5.4"},
    }
    return Findings(**(content | changes))


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
    folder: Path, findings: Findings | None, model: str = MODEL, sha256: str = MODEL_SHA256
) -> Path:
    """The folder of a text evaluation; without findings, of one that has just begun."""
    folder.mkdir(parents=True)
    run = {"config": {"model": model, "rate": "0.5"}, "inputs_sha256": {"model": sha256}}
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
    if findings:
        write_findings(findings, folder)
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
    from made_up import make_records, make_run, write_run  # beside this file

    top, made = Path(sys.argv[1]), make_run(25, delays=(0.0,))
    write_run(top / "libero", made, make_records(made))
    keep_policies(top / "libero", {"leader-0.5": "11" * 32, "leader-0.75": "22" * 32})
    write_text_run(top / "language", make_findings())
    write_text_run(top / "textvqa", make_findings("textvqa", (0.5, 0.75), complete=False))
    write_text_run(top / "textvqa-begun", None)
    write_receipt(top / "orin-bundle", "11" * 32)
    print(json.dumps(asdict(make_findings()), indent=1)[:200])
