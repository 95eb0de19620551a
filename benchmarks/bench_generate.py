"""How long a token takes behind a compressed cache, beside the exact and other quantized ones.

python benchmarks/bench_generate.py --prompt 256 2048

A prompt fills the cache, then tokens are generated greedily, one at a time; caches take turns.
Transformers' own quantized caches are compared where their packages are installed (bench_kv.py).
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: the root of the checkout, for `eval`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import json
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor

from benchmarks.kv_arms import Arm, EinSortArm, Layers, QuantizedArm, prefill
from benchmarks.timing import check_device, device_name, time_ms
from einsort_vla.atomic import check_new
from einsort_vla.cli.run import run_command
from einsort_vla.errors import MissingDependency, UsageError
from eval.text.models import SMOLLM2, find_model
from eval.text.perplexity import PROSE, read_text


@dataclass(frozen=True)
class Settings:
    """Milliseconds a token behind every kind of cache."""

    prompt: tuple[int, ...] = (256, 2048)
    """Tokens that fill the cache."""
    tokens: int = 16
    """Generated in each round; the first one is not counted."""
    rounds: int = 5
    """Of each cache; medians are shown."""
    text: str = PROSE
    """UTF-8 file that prompts are taken from, or a hub data set, as for eval/language.py."""
    model: str = SMOLLM2
    """Transformers folder, hub id, or smollm2-135m."""
    device: str = "cpu"
    """Or `cuda`."""
    json: Path | None = None
    """File for the rows."""


def main(settings: Settings, console: Console) -> int:
    """Measure, print the table, write what was asked for."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    check_device(settings.device)
    if settings.json is not None:
        check_new(settings.json)
    if settings.tokens < 2 or min(settings.rounds, *settings.prompt) < 1:
        raise UsageError("--tokens is 2 or more; --prompt and --rounds are 1 or more.")
    folder = find_model(settings.model, console).folder
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor([tokenizer(read_text(settings.text).content, verbose=False)["input_ids"]])
    if ids.shape[1] < max(settings.prompt):
        raise UsageError(f"the text has {ids.shape[1]} tokens, fewer than --prompt asks for.")
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model.to(settings.device)
    with Progress(console=console) as progress:
        rows = []
        for n in progress.track(settings.prompt, description="prompts"):
            rows += compare(model, ids[:, :n].to(settings.device), settings, console)
    show(rows, settings, console)
    if settings.json is not None:
        settings.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


def compare(model: Any, prompt: Tensor, settings: Settings, console: Console) -> list[dict]:
    """One row for each cache, medians over rounds in which they take turns."""
    layers, token = prefill(model, prompt)
    arms = {arm.name: arm for arm in all_arms(model.config)}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in arms}
    for _ in range(settings.rounds):
        for name in list(found):
            try:
                found[name].append(one_round(model, arms[name], layers, token, settings))
            except MissingDependency as error:
                console.print(f"left out: {error}")
                del found[name]
    return [
        {"cache": name, "prompt": prompt.shape[1]}
        | {key: median(own[key] for own in rounds) for key in rounds[0]}
        for name, rounds in found.items()
    ]


def all_arms(config: Any) -> list[Arm]:
    return [
        Arm("exact", "bits"),
        *(EinSortArm(f"{form}, rate {rate}", "bits", form, rate)
          for form, rate in (("curve", 0.75), ("curve", 0.85), ("scalar", 0.75))),
        *(QuantizedArm(f"{name} 4 bits", "bits", name, 4, axes, config)
          for name, axes in (("quanto", (0, 0)), ("hqq", (1, 1)))),
    ]  # fmt: skip


def one_round(
    model: Any, arm: Arm, layers: Layers, token: Tensor, settings: Settings
) -> dict[str, float]:
    """Fill the arm's cache, generate."""
    filled: list[Any] = []
    coding_ms = time_ms(lambda: filled.extend(arm.fill(layers)), settings.device)
    latest = [token]

    def step() -> None:
        logits = model(latest[0], past_key_values=filled[0].cache).logits
        latest[0] = logits[:, -1:].argmax(-1)

    with torch.inference_mode():
        times = [time_ms(step, settings.device) for _ in range(settings.tokens)]
    return {"bits": filled[0].bits, "coding_ms": coding_ms, "token_ms": median(times[1:])}


def show(rows: list[dict[str, Any]], settings: Settings, console: Console) -> None:
    console.print(
        f"{settings.model} in float32 on {device_name(settings.device)}, "
        f"{torch.get_num_threads()} threads; medians of {settings.rounds} rounds of "
        f"{settings.tokens - 1} tokens. bits: of a number of the coded prompt, everything counted."
    )
    table = Table("prompt", "cache", "bits", "coding the prompt, ms", "a token, ms", "exact = 1")
    exact = {row["prompt"]: row["token_ms"] for row in rows if row["cache"] == "exact"}
    for row in rows:
        table.add_row(
            str(row["prompt"]), row["cache"], f"{row['bits']:.2f}", f"{row['coding_ms']:.0f}",
            f"{row['token_ms']:.1f}", f"{row['token_ms'] / exact[row['prompt']]:.2f}",
        )  # fmt: skip
    console.print(table)


if __name__ == "__main__":
    run_command(Settings, main, "benchmarks/bench_generate.py")
