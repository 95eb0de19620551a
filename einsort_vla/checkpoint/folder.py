"""A compressed policy folder: weights, config, side files that travel, a card and a manifest."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from einsort_vla.checkpoint import file as checkpoint_file
from einsort_vla.checkpoint import manifest
from einsort_vla.checkpoint.card import CARD, model_card
from einsort_vla.checkpoint.file import FORMAT_VERSION, Checkpoint
from einsort_vla.checkpoint.processors import carry_tokenizer
from einsort_vla.checkpoint.saved import read_saved, was_saved
from einsort_vla.checkpoint.side_files import SideFiles, side_files
from einsort_vla.checkpoint.source import (
    CONFIG,
    INDEX,
    METHOD,
    QUANTIZATION,
    WEIGHTS,
    DenseFolder,
    is_compressed,
    policy_type,
    read_config,
)
from einsort_vla.checkpoint.writer import FileWriter, Layout
from einsort_vla.claims import Claim, Resumable, claim, resumable_folder
from einsort_vla.codec import Codec, CompressedTensor, Dense, Shape, encode
from einsort_vla.errors import CheckpointError, EinSortError
from einsort_vla.families import TYPE_PREFIX
from einsort_vla.plan import Candidates, LayerStatistics, Plan, allocate, candidates_of, check_rate
from einsort_vla.tensors import DTYPES, StoredTensor

MATRICES_AT_ONCE = 4  # with feedback; each takes up to four times its float32 size of memory


@dataclass(frozen=True)
class CompressionSummary:
    """What a compression did, in the units of every report."""

    plan: Plan
    dense_bytes: int  # of the source's weight files
    compressed_bytes: int
    n_weights: int  # of the source, in all tensors that are stored
    unseen: Sequence[str] = ()  # matrices whose layers the calibration did not see at work
    notes: tuple[str, ...] = ()  # sentences on files that were left out, or travel and are large

    @property
    def share_coded(self) -> float:
        """Of all weights; the others were stored as they were."""
        return self.plan.n_coded / self.n_weights

    @property
    def share_saved(self) -> float:
        """Of the bytes of the whole weight file."""
        return 1 - self.compressed_bytes / self.dense_bytes


def plan_folder(
    dense: DenseFolder,
    rate: float,
    codec: Codec,
    statistics: LayerStatistics | None = None,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Plan:
    """The code of every compressible matrix of a dense policy, so that one rate is met.

    For several rates take `candidates_of` once, and `plan_candidates` for each.

    Args:
        dense: the policy.
        rate: share of bytes to remove.
        codec: which codes there are to choose from.
        statistics: with sensitivities, bits go where the policy's actions need them.
        include: see `candidates_of`; likewise `exclude` and `on_progress`.

    Raises:
        CheckpointError: the statistics are another policy's.
        UsageError: the rate cannot be met, or a pattern fits no matrix.
    """
    check_rate(rate)
    candidates = candidates_of(dense, codec, include, exclude, on_progress)
    return plan_candidates(dense, candidates, rate, statistics)


def plan_candidates(
    dense: DenseFolder,
    candidates: Candidates,
    rate: float,
    statistics: LayerStatistics | None = None,
) -> Plan:
    """See `plan_folder`."""
    if statistics is None:
        return allocate(candidates, rate)
    statistics.check_source(dense.sha256)
    return allocate(candidates, rate, statistics.sensitivities or None)


def compress_folder(
    dense: DenseFolder,
    destination: Path | Claim,
    plan: Plan,
    statistics: LayerStatistics | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> CompressionSummary:
    """Write a copy of a policy folder, compressed by a plan that was made for it.

    The new folder appears under its name when it is whole, if the source is then what it was. A run
    that was stopped leaves `<destination>.partial`, and the same call goes on with it.

    Args:
        dense: the policy.
        destination: the folder to make.
        plan: from `plan_folder` of that policy.
        statistics: the layers' inputs; with them, errors are fed back so that outputs stay close.
            A layer that did not run, or on zeros alone, is coded as without them.
        on_progress: called with weights coded and weights in all.

    Raises:
        CheckpointError: the destination exists, the disk is full, a file of the source cannot be
            copied or changed meanwhile, the plan or the statistics are those of another policy, or
            the statistics saw none of the layers at work.
        NumericsError: a weight is not finite.
        UsageError: another process is writing the destination, or it lies in the source.
    """
    with claim(destination, dense.folder) as own:
        _check_plan(plan, dense.matrices)
        unseen = _unseen(plan, statistics, dense) if statistics else []
        beside = _side_files(dense)
        names = {WEIGHTS, CONFIG, CARD, manifest.MANIFEST, *beside.travelling}
        with resumable_folder(own, _request(dense, plan, statistics), names) as partial:
            _write_weights(dense, plan, statistics, partial, on_progress)
            sizes = dense.n_bytes, (partial.folder / WEIGHTS).stat().st_size
            notes = tuple(beside.notes())
            summary = CompressionSummary(plan, *sizes, dense.n_weights, unseen, notes)
            _write_beside(dense, summary, beside, partial)
            dense.check_unchanged()
            beside.check_unchanged(_side_files(dense))
    return summary


def read_folder(folder: Path) -> Checkpoint:
    """The compressed weights of a policy folder, whose files are checked against its manifest.

    What Transformers' `save_pretrained` wrote has no manifest, and is checked without one.

    Raises:
        CheckpointError: the folder holds no compressed policy, or a file of it was changed.
    """
    config = read_config(folder)
    if not is_compressed(config):
        raise CheckpointError(
            f"{folder} holds a dense policy of type {policy_type(folder, config)!r}. "
            f"Compress it first: einsort-vla compress {folder} DIR --rate 0.5"
        )
    has_manifest = manifest.exists(folder)
    if has_manifest or not was_saved(folder):
        manifest.check(folder)
    if was_saved(folder):
        return replace(read_saved(folder, config), has_fingerprints=has_manifest)
    return checkpoint_file.read(folder / WEIGHTS)


def _compressed_config(dense: DenseFolder, plan: Plan) -> dict[str, Any]:
    """config.json of the new folder: a loader that knows the dense type alone must refuse it."""
    if dense.is_lerobot:
        return dense.config | {"type": TYPE_PREFIX + dense.policy_type}
    tensors = {dense.in_model[name]: planned for name, planned in plan.tensors.items()}
    method = {
        "quant_method": METHOD,
        "rate": plan.rate_requested,
        "codec": str(plan.codec),
        "plan": replace(plan, tensors=tensors).as_dict(),
    }
    return dense.config | {QUANTIZATION: method}


def _check_plan(plan: Plan, shapes: Mapping[str, Shape]) -> None:
    Plan.from_dict(plan.as_dict())  # what no reader takes is refused before hours of coding
    planned = {name: code.shape for name, code in plan.tensors.items()}
    if other := sorted(planned.items() ^ shapes.items()):
        name = other[0][0]
        what = f"the plan has {name}, which is no compressible matrix of this policy"
        if name not in planned:
            what = f"the plan lacks {name}"
        elif name in shapes:
            what = f"{name} has the shape {planned[name]} in the plan, {shapes[name]} in the policy"
        raise CheckpointError(f"{what}. Correct it, or plan this policy anew.")
    if plan.rate < plan.rate_requested and plan.rate_requested > 0:  # 0 keeps float32, too
        raise CheckpointError(
            f"the plan reaches rate {plan.rate:.4f}, less than its rate_requested "
            f"({plan.rate_requested}). Choose codes of fewer bits, or lower rate_requested."
        )


def _unseen(plan: Plan, statistics: LayerStatistics, dense: DenseFolder) -> list[str]:
    """The matrices to code whose layers had no inputs but zeros."""
    statistics.check_source(dense.sha256)
    coded = [name for name, planned in plan.tensors.items() if not isinstance(planned.spec, Dense)]
    unseen = [name for name in coded if not statistics.saw(name)]
    if unseen and len(unseen) == len(coded):
        raise CheckpointError(
            f"the calibration saw none of the {len(coded)} layers to code at work, such as "
            f"{unseen[0]}: it was made for another part of the policy."
        )
    return unseen


def _write_weights(
    dense: DenseFolder,
    plan: Plan,
    statistics: LayerStatistics | None,
    partial: Resumable,
    on_progress: Callable[[int, int], None],
) -> None:
    layout, details = described(dense, plan, statistics is not None)
    writer = FileWriter(partial.folder / WEIGHTS, layout, details, partial.journal)
    try:
        for name in layout.keys() & dense.tensors.keys() - writer.done:
            tensor = checkpoint_file.no_nan(dense.where(name), dense.get(name))
            dense.check_unchanged()  # what the journal names is of these weights, whoever goes on
            writer.write({name: tensor})
        _write_coded(dense, plan, statistics, writer, partial.give_up, on_progress)
    finally:
        writer.sync()
    writer.finish()


def described(dense: DenseFolder, plan: Plan, is_calibrated: bool) -> tuple[Layout, dict[str, str]]:
    """Layout and metadata of the weight file that a plan leads to."""
    dropped = dense.family.dropped_reasons(dense.tensors.keys())
    remainder = {
        name: (_dtype(dense.where(name), stored), stored.shape)
        for name, stored in dense.tensors.items()
        if name not in plan.tensors and name not in dropped
    }
    about = Checkpoint(plan, {}, {}, dropped, dense.sha256, is_calibrated)
    return checkpoint_file.layout(plan, remainder), checkpoint_file.metadata(about)


def _dtype(name: str, stored: StoredTensor) -> torch.dtype:
    if stored.dtype not in DTYPES:
        raise CheckpointError(f"{name} has the type {stored.dtype}, which cannot be carried over.")
    return DTYPES[stored.dtype]


def _write_coded(
    dense: DenseFolder,
    plan: Plan,
    statistics: LayerStatistics | None,
    writer: FileWriter,
    on_bad_weight: Callable[[], None],
    on_progress: Callable[[int, int], None],
) -> None:
    def encode_one(name: str) -> CompressedTensor:
        try:
            hessian = statistics.hessian(name) if statistics and statistics.saw(name) else None
            return encode(dense.get(name), plan.tensors[name].spec, hessian)
        except EinSortError as error:
            on_bad_weight()
            raise type(error)(f"{dense.where(name)}: {error}") from error

    def is_done(name: str) -> bool:
        parts = plan.tensors[name].spec.layout(plan.tensors[name].shape)
        return all(f"{name}_{part}" in writer.done for part in parts)

    left = [name for name in plan.tensors if not is_done(name)]
    coded = plan.n_weights - sum(math.prod(plan.tensors[name].shape) for name in left)
    # Without feedback one matrix keeps all threads busy; with it, each matrix only one.
    at_once = min(MATRICES_AT_ONCE, torch.get_num_threads()) if statistics else 1
    with ThreadPoolExecutor(at_once) as pool:
        for name, compressed in zip(left, pool.map(encode_one, left), strict=True):
            dense.check_unchanged()
            writer.write(checkpoint_file.parts_by_name(name, compressed))
            coded += math.prod(compressed.shape)
            on_progress(coded, plan.n_weights)


def _write_beside(
    dense: DenseFolder, summary: CompressionSummary, beside: SideFiles, partial: Resumable
) -> None:
    """All files but the weights."""
    folder = partial.folder
    config = _compressed_config(dense, summary.plan)
    beside.copy(folder)
    carry_tokenizer(folder, lambda name: partial.add([name]))
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    sizes = summary.dense_bytes, summary.compressed_bytes
    card = model_card(dense.folder.name, dense, summary.plan, *sizes, summary.notes)
    (folder / CARD).write_text(card, encoding="utf-8")
    manifest.write(folder)


def _side_files(dense: DenseFolder) -> SideFiles:
    # The dense policy's card describes it; its manifest is of other files.
    own = {file.name for file in dense.files} | {WEIGHTS, INDEX, CONFIG, CARD, manifest.MANIFEST}
    return side_files(dense.folder, own, dense.tensors.keys())


def _request(dense: DenseFolder, plan: Plan, statistics: LayerStatistics | None) -> str:
    """Tells whether two calls would write the same weights."""
    inputs = statistics.sha256() if statistics else ""
    content = [FORMAT_VERSION, dense.sha256, plan.as_dict(), inputs]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
