"""The tables of bench_kv as Markdown, made of its rows."""

import math
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
from scipy.stats import bootstrap

from benchmarks.kv_arms import REDUCTIONS, Table, row_name
from einsort_vla.codec import Network

Row = dict[str, Any]
BEST = "abs_power p=1, sign split, gauge, prod"
N_RESAMPLES = 2000


def render(run: dict[str, Any], rows: Sequence[Row]) -> str:
    """The page: what was measured, and a table for each question."""
    by_name = {row["arm"]: row for row in rows}
    if "exact" not in by_name:
        return "No rows yet.\n"
    exact = by_name["exact"]["nll"]
    lines = _head(run, exact)
    best = [by_name[BEST]] if BEST in by_name else []
    of = {table: [row for row in rows if row["table"] == table] for table in get_args(Table)}
    unsorted = [row for row in of["order"] if row["arm"] != "exact"]
    lines += _table("What the sort, the signs and the gauge bring (core rate 0.5)",
                    [*unsorted, *best], exact)  # fmt: skip
    lines += _table("Each reduction at its best exponent, sign split and gauge (core rate 0.5)",
                    _best_exponents(of["scores"]), exact)  # fmt: skip
    lines += _grid(of["scores"], exact)
    lines += _table("Topologies in three modes, as in the paper's table 2: product, square root, "
                    "sign split, gauge", of["topologies"], exact)  # fmt: skip
    lines += _table("Topologies in four modes, with the paper's best recipe (core rate 0.5)",
                    [*best, *of["folds"]], exact)  # fmt: skip
    lines += _table("At equal bits, everything counted",
                    sorted(of["bits"], key=lambda row: -row["bits_per_entry"]), exact)  # fmt: skip
    return "\n".join(lines) + "\n"


def _head(run: dict[str, Any], exact: Sequence[float]) -> list[str]:
    """What was measured, and what the columns mean."""
    config = run["config"]
    return [
        "# Compressed KV caches on a language model",
        "",
        "Made by `benchmarks/bench_kv.py`. The protocol is that of the EinSort paper (arXiv "
        f"2606.08565, section 4.1): {config['prefix_tokens']} tokens of a segment fill the cache, "
        f"it is compressed, the next {config['scored_tokens']} are scored. Short contexts make "
        "perplexities high; compare them within this page only.",
        "",
        f"- model {config['model']}, text {config['text']}, {config['segments']} segments, the "
        "same for every cache",
        f"- exact cache: perplexity {_perplexity(exact):.2f}",
        "- ratio: perplexity over that of the exact cache, with a 95 % bootstrap interval over "
        "segments",
        "- bits: stored bits of a number of the cache with signs, orders, scales, means, gauge "
        "rows and padding counted; 16 is bfloat16",
        "- core rate: share of the numbers that a network's cores leave out, the paper's rate",
        "- topologies: SVD of (heads x tokens, head_dim); the others have three modes, heads, "
        "tokens and head_dim, or four: each axis of the SVD's in its two nearest factors. A train "
        "whose outer bonds are full, as here, is the SVD once more",
        f"- begun at commit {run['git_commit']}, torch {run['versions']['torch']}, transformers "
        f"{run['versions']['transformers']}",
    ]


def _table(title: str, rows: Sequence[Row], exact: Sequence[float]) -> list[str]:
    if not rows:
        return []
    lines = ["", f"## {title}", "", "| cache | core rate | bits | perplexity | ratio (95 %) |",
             "|---|---|---|---|---|"]  # fmt: skip
    for row in rows:
        core = "" if row["core_rate"] is None else f"{row['core_rate']:.3f}"
        ratio, low, high = ratio_of(row["nll"], exact)
        lines.append(
            f"| {row['arm']} | {core} | {row['bits_per_entry']:.2f} | "
            f"{_perplexity(row['nll']):.2f} | {ratio:.3f} ({low:.3f} to {high:.3f}) |"
        )
    return lines


def _best_exponents(rows: Sequence[Row]) -> list[Row]:
    """The paper's table 1: of each reduction, the power of |x| with the least perplexity."""
    specs = [(Network(**row["network"]), row) for row in rows]
    powers = [(spec, row) for spec, row in specs
              if spec.map == "abs_power" and spec.sign_split and spec.is_gauged]  # fmt: skip
    found = {r: [row for spec, row in powers if spec.reduction == r] for r in REDUCTIONS}
    return [min(own, key=lambda row: np.mean(row["nll"])) for own in found.values() if own]


def _grid(rows: Sequence[Row], exact: Sequence[float]) -> list[str]:
    """Table 4: a row for each map, a column for each reduction; ratios."""
    if not rows:
        return []
    lines = ["", "## Maps and reductions (core rate 0.5; ratios of perplexity)", "",
             f"| map | {' | '.join(REDUCTIONS)} |",
             "|---" * (len(REDUCTIONS) + 1) + "|"]  # fmt: skip
    specs = [(Network(**row["network"]), row) for row in rows]
    for name in dict.fromkeys(row_name(spec) for spec, _ in specs):
        found = {spec.reduction: row for spec, row in specs if row_name(spec) == name}
        ratios = {r: ratio_of(row["nll"], exact)[0] for r, row in found.items()}
        cells = [f"{ratios[r]:.2f}" if r in ratios else "" for r in REDUCTIONS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def ratio_of(nll: Sequence[float], exact: Sequence[float]) -> tuple[float, float, float]:
    """Ratio of two perplexities over the same segments, with its interval."""
    difference = np.asarray(nll) - np.asarray(exact)
    if not difference.any():
        return 1.0, 1.0, 1.0
    interval = bootstrap(
        (difference,), np.mean, n_resamples=N_RESAMPLES, method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return math.exp(difference.mean()), math.exp(interval.low), math.exp(interval.high)


def _perplexity(nll: Sequence[float]) -> float:
    return math.exp(float(np.mean(nll)))
