"""Perplexity of a text: windows of tokens, the negative log-likelihood of each, paired ratios."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from msgspec import Meta
from torch import Tensor
from torch.nn.functional import cross_entropy

from einsort_vla import reading
from einsort_vla.errors import CheckpointError, UsageError, importing, reason_of
from einsort_vla.results.measures import Estimate
from einsort_vla.results.record import LARGEST, Figure, Record
from einsort_vla.results.statistics import bootstrap_interval, ratio_of_sums
from eval.run.provenance import ROOT
from eval.text.settings import PROSE

COLUMN = "text"  # of a hub data set
MAX_BYTES = 2**30  # of a text; WikiText-103 has half of that


@dataclass(frozen=True)
class Text:
    """What is scored."""

    content: str
    source: str  # file or hub data set, in words
    path: Path | None  # of a file


@dataclass(frozen=True)
class Window:
    """A run of tokens that a model reads at once, from an empty context."""

    ids: Tensor  # (window,) int64, or one more
    n_scored: int  # its last tokens, which no window before has scored


class WindowScore(Record, frozen=True):
    """What one model made of one window; a line of windows.jsonl."""

    arm: str
    window: int  # its number, from 0
    n_tokens: Annotated[int, Meta(ge=1)]  # scored
    nll: Figure | None = None  # sum of -ln p over the scored tokens; None if NaN or infinite


def read_text(text: str) -> Text:
    """The content of a UTF-8 file, or of a hub data set `NAME[:CONFIG[:SPLIT[:COLUMN]]]`.

    The rows of a data set are joined by blank lines, as is usual for WikiText-2; the split is
    `test`, the column `text` unless said otherwise.

    Raises:
        UsageError: it is neither a file nor the name of a data set.
        CheckpointError: the file is no text, or the data set cannot be reached or has no such part.
        MissingDependency: a data set is asked for, and `datasets` is not installed.
    """
    path = ROOT / text if text == PROSE else Path(text)
    if path.is_file():
        return Text(reading.read_text(path, MAX_BYTES), text, path)
    name, *rest = text.split(":")
    if name.count("/") != 1 or name[0] in "./~" or len(rest) > 3:
        raise UsageError(
            f"--text {text!r} is neither a file nor a hub data set such as "
            "Salesforce/wikitext:wikitext-2-raw-v1:test:text."
        )
    config, split, column = [*rest, *(None, "test", COLUMN)[len(rest) :]]
    return Text(_from_hub(name, config or None, str(split), str(column)), text, None)


def _from_hub(name: str, config: str | None, split: str, column: str) -> str:
    with importing("a hub data set needs `datasets`", "pip install 'einsort-vla[language]'"):
        from datasets import load_dataset
    try:
        rows: Any = load_dataset(name, config, split=split)
        return "\n\n".join(rows[column])
    except Exception as error:  # whatever the hub, the network or a missing part raises
        raise CheckpointError(
            f"the data set {name} ({config or 'default'}, {split}, column {column}) cannot be had: "
            f"{reason_of(error)}. Check the name and the "
            "network, or give --text a file."
        ) from error


def cut(
    ids: Tensor, window: int, stride: int, limit: int = 0, first: int | None = None
) -> list[Window]:
    """Windows of equal length, each `stride` tokens after the one before; a rest is left out.

    Of the first window all tokens but the first are scored; of others the last `stride`, at most
    all but the first: each token once, with as much context as its window has.

    Args:
        ids: (n,) tokens of the text.
        window: tokens that the model sees at once.
        stride: 1 to `window`.
        limit: windows at most; 0 means all.
        first: a token put before each window, as some models need one; scored is the same.

    Raises:
        UsageError: a number is out of range, or the text is shorter than a window.
    """
    if window < 2 or not 1 <= stride <= window or limit < 0:
        raise UsageError(
            f"--window {window} must be at least 2, --stride {stride} from 1 to the window, and "
            f"--windows {limit} at least 0."
        )
    if len(ids) < window:
        raise UsageError(
            f"the text has {len(ids)} tokens, less than one --window of {window}. Give a longer "
            "text, or a smaller window with its --stride."
        )
    starts = range(0, len(ids) - window + 1, stride)[: limit or None]
    before = ids[:0] if first is None else ids.new_tensor([first])
    return [
        Window(
            torch.cat([before, ids[start : start + window]]),
            min(stride, window - 1) if start else window - 1,
        )
        for start in starts
    ]


@torch.inference_mode()
def score_window(model: Any, window: Window) -> float | None:
    """Sum of -ln p over the scored tokens of a window, p of a causal language model.

    None where it is NaN or infinite, as of a model that gives a token no probability.
    """
    ids = window.ids.to(model.device)
    logits = model(input_ids=ids[None], use_cache=False).logits[0]  # (window, n_vocabulary)
    before = logits[-window.n_scored - 1 : -1].float()
    losses = cross_entropy(before, ids[-window.n_scored :], reduction="none")
    nll = float(losses.double().sum())
    return nll if abs(nll) <= LARGEST else None


def perplexity(scores: Sequence[WindowScore]) -> Estimate | None:
    """exp of the mean -ln p a token, with a bootstrap interval over windows.

    None where a window has no finite score, or where it is too large for a number.
    """
    return _exp_mean([score.nll for score in scores], scores)


def perplexity_ratio(
    scores: Sequence[WindowScore], reference: Sequence[WindowScore]
) -> Estimate | None:
    """Perplexity over that of a reference on the same windows, in the same order; None as there.

    The interval resamples windows, both models' scores of a window together: what is hard for both
    cancels.
    """
    assert [s.window for s in scores] == [r.window for r in reference]
    pairs = zip(scores, reference, strict=True)
    changes = [
        None if score.nll is None or other.nll is None else score.nll - other.nll
        for score, other in pairs
    ]
    return _exp_mean(changes, scores)


def _exp_mean(sums: Sequence[float | None], scores: Sequence[WindowScore]) -> Estimate | None:
    n_tokens = [score.n_tokens for score in scores]
    known = [each for each in sums if each is not None]
    if len(known) < len(sums):
        return None
    logarithms = bootstrap_interval((known, n_tokens), ratio_of_sums)
    with np.errstate(over="ignore"):
        value, *bounds = np.exp([np.sum(known) / np.sum(n_tokens), *(logarithms or ())]).tolist()
    if not max([value, *bounds]) <= LARGEST:
        return None
    return Estimate.of(value, tuple(bounds) or None, sum(n_tokens))
