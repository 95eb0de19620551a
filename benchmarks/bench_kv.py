"""The EinSort paper's KV protocol on SmolLM2-135M: perplexity behind a compressed prefix.

Segments of a text are read as the paper does: 64 tokens fill the cache, it is compressed, the next
64 are scored. Every arm sees the same segments.

python benchmarks/bench_kv.py --quick --json kv.jsonl --markdown kv.md

Transformers' own quantized caches are compared where their packages are installed, without what
they require: uv pip install --no-deps hqq==0.2.8.post1 optimum-quanto==0.2.7 ninja
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: the root of the checkout, for `eval`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from msgspec import to_builtins
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from benchmarks.kv_arms import Arm, Layers, Table, all_arms, prefill
from benchmarks.kv_page import render
from einsort_vla.checkpoint import file_sha256
from einsort_vla.cli.run import run_command
from einsort_vla.codec import Network
from einsort_vla.errors import CheckpointError, MissingDependency, UsageError
from einsort_vla.results.log import appending, read_log
from eval.run.provenance import describe
from eval.text.models import SMOLLM2, find_model
from eval.text.perplexity import PROSE, read_text

PREFIX, SCORED = 64, 64
SEGMENT = PREFIX + SCORED + 1  # the last one is only predicted
SEGMENTS, QUICK_SEGMENTS = 32, 4


@dataclass(frozen=True)
class Settings:
    """Perplexity of a language model behind a compressed cache, for every form and score."""

    text: str = PROSE
    """UTF-8 file that the segments are taken from, or a hub data set, as for eval/language.py."""
    model: str = SMOLLM2
    """Transformers folder, hub id, or smollm2-135m."""
    quick: bool = False
    """4 segments instead of 32, and no canonical decomposition."""
    segments: int = 0
    """So many segments instead."""
    only: tuple[Table, ...] = ()
    """Only these tables."""
    json: Path | None = None
    """File of rows, one JSON object a line, written as they come; a file of the same run is gone on
    with."""
    markdown: Path | None = None
    """File for the tables, made of the rows."""


def main(settings: Settings, console: Console) -> int:
    """Measure what is not in the file yet, print the tables."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    dense = find_model(settings.model, console)
    text = read_text(settings.text)
    n = settings.segments or (QUICK_SEGMENTS if settings.quick else SEGMENTS)
    tokenizer = AutoTokenizer.from_pretrained(dense.folder)
    segments = cut(torch.tensor(tokenizer(text.content, verbose=False)["input_ids"]), n)
    config = {
        "text": text.path.name if text.path else text.source,
        "model": settings.model,
        "segments": n,
        "prefix_tokens": PREFIX,
        "scored_tokens": SCORED,
    }
    inputs = {"model": dense.sha256} | ({"text": file_sha256(text.path)} if text.path else {})
    run = to_builtins(describe("kv", "benchmarks/bench_kv.py", settings.model, config, inputs))
    rows = read_rows(settings.json, run)
    model = AutoModelForCausalLM.from_pretrained(dense.folder, dtype=torch.float32).eval()
    layers, _ = prefill(model, segments[:, :PREFIX])
    arms = all_arms(model.config, with_cp=not settings.quick)
    arms = [arm for arm in arms if not settings.only or arm.table in settings.only or is_exact(arm)]
    missing = [arm for arm in arms if arm.name not in {row["arm"] for row in rows}]
    with Progress(console=console) as progress:
        for arm in progress.track(missing, description="caches"):
            try:
                rows.append(measure(arm, model, segments, layers))
            except MissingDependency as error:
                console.print(f"left out: {error}")
                continue
            if settings.json:
                with appending(settings.json) as write:
                    write(rows[-1])
    page = render(run, rows)
    console.print(page, markup=False)
    if settings.markdown:
        settings.markdown.write_text(page, encoding="utf-8")
    return 0


def is_exact(arm: Arm) -> bool:
    return type(arm) is Arm


def cut(ids: Tensor, n: int) -> Tensor:
    """(n, SEGMENT) segments, spread evenly over the text.

    Raises:
        UsageError: the text is too short for them.
    """
    if n < 2 or len(ids) < n * SEGMENT:
        raise UsageError(
            f"{n} segments of {SEGMENT} tokens were asked for; 2 or more are needed, and the text "
            f"has {len(ids)} tokens, enough for {len(ids) // SEGMENT}."
        )
    return ids[: len(ids) // n * n].view(n, -1)[:, :SEGMENT]


def measure(arm: Arm, model: Any, segments: Tensor, layers: Layers) -> dict[str, Any]:
    """One row: mean negative log-likelihood of each segment behind the arm's cache."""
    started = time.perf_counter()
    filled = arm.fill(layers)
    coded = time.perf_counter()
    scores: list[float] = []
    with torch.inference_mode():
        for own in filled:
            ids = segments[own.first : own.last]
            logits = model(ids[:, PREFIX:-1], past_key_values=own.cache).logits
            nll = -logits.log_softmax(-1).gather(-1, ids[:, PREFIX + 1 :, None])[..., 0]
            scores += nll.double().mean(1).tolist()
    codec = getattr(arm, "codec", None)
    return {
        "arm": arm.name,
        "table": arm.table,
        "network": asdict(codec) if isinstance(codec, Network) else None,
        "bits_per_entry": sum(own.bits for own in filled) / len(filled),
        "core_rate": filled[0].core_rate,
        "nll": scores,
        "coding_s": (coded - started) / len(segments),
    }


def read_rows(path: Path | None, run: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of an earlier start of the same run; the file begun if there is none.

    Raises:
        UsageError: the file holds another run.
        CheckpointError: it holds something else.
    """
    if path is None:
        return []
    if not path.exists():
        with appending(path) as write:
            write(run)
        return []
    try:
        earlier, *rows = read_log(path, dict[str, Any])
        if earlier["config"] != run["config"] or earlier["inputs_sha256"] != run["inputs_sha256"]:
            raise UsageError(f"{path} holds another run; nothing was written. Name another file.")
        return [{"arm": row["arm"], "nll": row["nll"], **row} for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} holds no rows of this benchmark ({error}). Name another file."
        ) from error


if __name__ == "__main__":
    run_command(Settings, main, "benchmarks/bench_kv.py")
