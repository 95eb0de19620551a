"""What plans and feedback cost the actions: error against the dense policy on what it saw.

Moments are of every other episode; the error is of the others.

python benchmarks/bench_plan.py outputs/calibration --rates 0.875 0.9
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: the root of the checkout
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor
from tyro.conf import Positional

from einsort_vla.cli.run import run_command
from einsort_vla.codec import Codec, decode, encode
from einsort_vla.errors import CheckpointError, UsageError
from einsort_vla.lerobot import (
    LoadedPolicy,
    Observation,
    action_chunks,
    action_error,
    load_observations,
    load_policy,
    replaced,
    spread,
    watch_inputs,
    watch_layers,
)
from einsort_vla.plan import (
    Candidates,
    LayerStatistics,
    Plan,
    PlannedTensor,
    allocate,
    check_rate,
    options,
)
from eval.closed_loop.calibration import STATISTICS
from eval.closed_loop.request import find_policy
from eval.closed_loop.settings import REFERENCE_POLICY

PLANS = ("least weight error", "smallest kept fine", "by sensitivity")
FEEDBACKS = ("none", "columns", "columns and rows")


@dataclass(frozen=True)
class Settings:
    """Error of the executed actions, in units of their variance, for each plan, with and without
    error feedback."""

    calibration: Positional[Path]
    """Folder that eval/calibrate.py wrote for the policy."""
    policy: str = REFERENCE_POLICY
    """Folder or hub id of a dense LeRobot policy."""
    codecs: tuple[str, ...] = ("curve",)
    """Forms, each with options of its menu."""
    rates: tuple[float, ...] = (0.875, 0.9)
    """Shares of linear-weight bytes to remove."""
    looks: int = 48
    """Observations to compare on; those that moments are of are three times as many."""
    json: Path | None = None
    """File for the rows."""


def main(settings: Settings, console: Console) -> int:
    """Print the table, write what was asked for."""
    if settings.json is not None and settings.json.exists():
        raise UsageError(f"{settings.json} exists already; nothing was written over.")
    codecs = [Codec.parse(text) for text in settings.codecs]
    for rate in settings.rates:
        check_rate(rate)
    statistics = LayerStatistics.load(settings.calibration / STATISTICS)
    if not statistics.sensitivities:
        raise CheckpointError(f"{settings.calibration} has no sensitivities: use --probes 48.")
    files = sorted(settings.calibration.glob("observations-*/*.safetensors"))
    looks = spread(load_observations(files[1::2]), settings.looks)
    policy = load_policy(str(find_policy(settings.policy).folder))
    expected = action_chunks(policy, looks)
    fed = _moments(policy, statistics, spread(load_observations(files[::2]), 3 * settings.looks))
    table = Table("codec", "rate", "plan", "feedback", "weight error", "action error")
    rows = []
    jobs = [(c, r, p) for c in codecs for r in settings.rates for p in PLANS]
    with Progress(console=console) as progress:
        for codec, rate, name in progress.track(jobs, description="coding"):
            plan = _plan(policy, statistics, codec, rate, name)
            for feedback in FEEDBACKS:
                weights, actions = _errors(policy, plan, fed[feedback], looks, expected)
                rows.append({"codec": str(codec), "rate": rate, "plan": name, "feedback": feedback,
                             "weight_error": weights, "action_error": actions})  # fmt: skip
                table.add_row(str(codec), str(rate), name, feedback,
                              f"{weights:.4f}", f"{actions:.4f}")  # fmt: skip
    console.print(table)
    if settings.json:
        settings.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


def _moments(
    policy: LoadedPolicy, of_file: LayerStatistics, looks: Sequence[Observation]
) -> dict[str, LayerStatistics | None]:
    """What each kind of feedback knows."""
    alike, felt = (LayerStatistics(of_file.source_sha256) for _ in range(2))
    names = list(of_file.second_moments)
    watch_inputs(policy, alike, names, looks)
    watch_layers(policy, felt, names, looks)
    return dict(zip(FEEDBACKS, (None, alike, felt), strict=True))


def _plan(
    policy: LoadedPolicy, statistics: LayerStatistics, codec: Codec, rate: float, name: str
) -> Plan:
    candidates: dict[str, list[PlannedTensor]] = {}
    for weight, layer in policy.layers(statistics.second_moments).items():
        matrix = layer.weight.detach().bfloat16()
        candidates[weight] = options((matrix.shape[0], matrix.shape[1]), codec, matrix)
    sizes = {weight: float(math.prod(c[0].shape)) for weight, c in candidates.items()}
    importance = {
        "least weight error": sizes, "smallest kept fine": None,
        "by sensitivity": statistics.sensitivities,
    }  # fmt: skip
    return allocate(Candidates(codec, candidates), rate, importance[name])


def _errors(
    policy: LoadedPolicy,
    plan: Plan,
    fed: LayerStatistics | None,
    looks: Sequence[Observation],
    expected: np.ndarray,
) -> tuple[float, float]:
    """Relative squared error of all weights, and the error of the actions."""
    missing = energy = 0.0
    coded: dict[str, Tensor] = {}
    layers = policy.layers(plan.tensors)
    for name, planned in plan.tensors.items():
        weight = layers[name].weight.detach()
        coded[name] = decode(encode(weight, planned.spec, fed.hessian(name) if fed else None))
        missing += float((weight - coded[name]).square().sum())
        energy += float(weight.square().sum())
    with replaced({layers[name].weight: value for name, value in coded.items()}):
        found = action_error(action_chunks(policy, looks), expected)
    return missing / energy, found


if __name__ == "__main__":
    torch.set_num_threads(1)
    run_command(Settings, main, "benchmarks/bench_plan.py")
