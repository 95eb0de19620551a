"""What a policy's actions lose when the prefix that it denoises from is held in a compressed cache.

python eval/calibrate.py --output outputs/calibration    # writes looks of random scenes
python benchmarks/bench_prefix.py --observations outputs/calibration/observations-*
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: the root of the checkout
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from scipy.stats import bootstrap

from einsort_vla.atomic import check_new
from einsort_vla.cache import CacheReport
from einsort_vla.cli.run import run_command
from einsort_vla.codec import DENSE_BITS, CodecSpec, Network
from einsort_vla.errors import UsageError
from einsort_vla.lerobot import (
    action_chunks,
    action_errors,
    compressed_prefix,
    load_policy,
    read_frames,
)
from eval.closed_loop.request import find_policy
from eval.closed_loop.settings import REFERENCE_POLICY

SVD = Network(1, scope="none", sign_split=False, is_gauged=False)
FORMS = ("curve", "scalar")
NETWORKS: dict[str, CodecSpec] = {"network, the paper's recipe": Network(1), "network, SVD": SVD}


@dataclass(frozen=True)
class Settings:
    """Action errors of a policy behind compressed prefixes, on the same looks with equal noise."""

    observations: str
    """Folder of eval/calibrate.py, or a LeRobot dataset."""
    policy: str = REFERENCE_POLICY
    """SmolVLA, pi0 or pi0.5, dense or compressed."""
    bits: tuple[float, ...] = (8.0, 4.0, 3.0, 2.0)
    """Bits a number of the prefix, everything counted; of networks only 8, of their cores alone."""
    n: int = 32
    """Looks, spread evenly over all."""
    json: Path | None = None
    """File for the rows."""


def main(settings: Settings, console: Console) -> int:
    """Print the table, write what was asked for."""
    if settings.json is not None:
        check_new(settings.json)
    if settings.n < 2:
        raise UsageError(f"--n is {settings.n}; two looks or more are compared.")
    policy = load_policy(str(find_policy(settings.policy).folder))
    looks = read_frames(settings.observations, settings.n)
    arms = [
        *((form, form, bits) for form in FORMS for bits in settings.bits),
        *((name, codec, DENSE_BITS / 2) for name, codec in NETWORKS.items()),
    ]
    rows = []
    with Progress(console=console) as progress:
        exact = action_chunks(policy, looks)
        for name, codec, bits in progress.track(arms, description="prefixes"):
            try:
                with compressed_prefix(policy, codec, 1 - bits / DENSE_BITS) as watch:
                    found = action_chunks(policy, looks)
            except UsageError as error:  # a code cannot be that small
                console.print(f"left out: {error}")
                continue
            rows.append({"codec": name, "bits_asked": bits, **_row(found, exact, watch.report)})
    _print(rows, len(looks), settings, console)
    if settings.json is not None:
        settings.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


def _row(found: np.ndarray, exact: np.ndarray, report: CacheReport) -> dict[str, Any]:
    """Numbers of one arm; the interval is over looks."""
    by_look = action_errors(found, exact)
    rng = np.random.default_rng(0)
    interval = bootstrap((by_look,), np.mean, method="percentile", rng=rng).confidence_interval
    return {
        "bits": report.bits_per_entry,
        "core_kept_fraction": report.core_kept_fraction,
        "entries": report.coded_entries,
        "bytes": report.bytes_stored,
        "action_error": float(by_look.mean()),
        "low": float(interval.low),
        "high": float(interval.high),
    }


def _print(rows: list[dict[str, Any]], n: int, settings: Settings, console: Console) -> None:
    console.print(
        f"{settings.policy}, {n} looks; a prefix of {rows[0]['entries']} numbers takes "
        f"{2 * rows[0]['entries']} bytes in bfloat16. Action error: mean square, in units of each "
        "action dimension's variance over the looks; 95 % bootstrap interval over looks."
    )
    table = Table("code", "bits a number", "bytes", "action error", "95 %")
    for row in rows:
        table.add_row(
            row["codec"], f"{row['bits']:.2f}", str(row["bytes"]), f"{row['action_error']:.2e}",
            f"{row['low']:.2e} to {row['high']:.2e}",
        )  # fmt: skip
    console.print(table)


if __name__ == "__main__":
    run_command(Settings, main, "benchmarks/bench_prefix.py")
