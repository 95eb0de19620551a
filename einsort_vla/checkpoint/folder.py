"""A policy folder: config.json, model.safetensors, and side files that travel unchanged."""

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from einsort_vla.checkpoint import file as checkpoint_file
from einsort_vla.checkpoint.families import dense_reason
from einsort_vla.checkpoint.file import Checkpoint, file_sha256
from einsort_vla.codec import CompressedTensor, check_codec, encode
from einsort_vla.errors import CheckpointError, EinSortError
from einsort_vla.plan import InputStatistics, Plan, allocate, check_rate, options

WEIGHTS, CONFIG = "model.safetensors", "config.json"
MATRICES_AT_ONCE = 4  # with feedback; each takes up to four times its float32 size of memory
TYPE_PREFIX = "einsort_"  # of the policy type: a loader that knows the dense type alone must refuse


@dataclass(frozen=True)
class CompressionSummary:
    """What a compression did, in the units of every report."""

    plan: Plan
    dense_bytes: int  # of the source's weight file
    compressed_bytes: int


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a policy folder, as plain data.

    Raises:
        CheckpointError: the folder, its config.json or its weights are missing or unreadable.
    """
    if not folder.exists():
        raise CheckpointError(f"the policy folder {folder} does not exist.")
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is a file; a policy is a folder with a {CONFIG}.")
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            found = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
            raise CheckpointError(f"{folder} is not a policy: no {name} in it (found: {found}).")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{folder / CONFIG} is not valid JSON: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("type"), str):
        raise CheckpointError(f"{folder / CONFIG} names no policy type.")
    return config


def compressible_shapes(folder: Path) -> dict[str, tuple[int, int]]:
    """Name to (out_features, in_features) of all compressible matrices of a dense policy."""
    policy_type = dense_type(folder)
    with _open(folder / WEIGHTS) as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    return {
        name: (shape[0], shape[1])
        for name, shape in shapes.items()
        if dense_reason(policy_type, name, shape) is None
    }


def plan_folder(
    source: Path, rate: float, form: str, statistics: InputStatistics | None = None
) -> Plan:
    """The code of every compressible matrix of a dense policy, so that the rate is met.

    Args:
        source: a dense policy folder.
        rate: share of bytes to remove.
        form: a codec form, with options of its menu.
        statistics: with sensitivities, bits go where the policy's actions need them.

    Raises:
        CheckpointError: the source is no dense policy, or the statistics are another policy's.
        UsageError: the rate or the form cannot be met.
    """
    check_rate(rate)
    check_codec(form)
    shapes = compressible_shapes(source)
    with _open(source / WEIGHTS) as file:
        choices = {n: options(shape, form, file.get_tensor(n)) for n, shape in shapes.items()}
    if statistics is None:
        return allocate(choices, rate, form)
    statistics.check_source(file_sha256(source / WEIGHTS))
    return allocate(choices, rate, form, statistics.sensitivities or None)


def compress_folder(
    source: Path,
    destination: Path,
    plan: Plan,
    statistics: InputStatistics | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> CompressionSummary:
    """Write a copy of a policy folder, compressed by a plan that was made for it.

    The new folder appears under its name when it is whole.

    Args:
        source: a dense policy folder.
        destination: the folder to make.
        plan: from `plan_folder` of that source.
        statistics: the layers' inputs; with them, errors are fed back so that outputs stay close.
        on_progress: called with weights coded and weights in all.

    Raises:
        CheckpointError: the source is no dense policy, the destination exists, or the plan or the
            statistics are those of another policy.
        NumericsError: a weight is not finite.
    """
    if destination.exists():
        raise CheckpointError(f"{destination} exists already; nothing was written over.")
    _check_plan(plan, compressible_shapes(source))
    if statistics:
        statistics.check_source(file_sha256(source / WEIGHTS))
    config = read_config(source)
    partial = destination.with_name(f"{destination.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        coded = _encode_all(source, plan, statistics, on_progress)
        checkpoint_file.write(partial / WEIGHTS, Checkpoint(plan, coded, _remainder(source, plan)))
        _copy_side_files(source, partial)
        config["type"] = TYPE_PREFIX + config["type"]
        (partial / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        os.replace(partial, destination)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return CompressionSummary(
        plan, (source / WEIGHTS).stat().st_size, (destination / WEIGHTS).stat().st_size
    )


def read_folder(folder: Path) -> Checkpoint:
    """The compressed weights of a policy folder.

    Raises:
        CheckpointError: the folder holds no compressed policy.
    """
    config = read_config(folder)
    if not config["type"].startswith(TYPE_PREFIX):
        raise CheckpointError(f"{folder} holds a dense policy of type {config['type']!r}.")
    return checkpoint_file.read(folder / WEIGHTS)


def dense_type(folder: Path) -> str:
    """The policy type of a dense policy folder.

    Raises:
        CheckpointError: the folder is no policy, or is compressed already.
    """
    policy_type = read_config(folder)["type"]
    if policy_type.startswith(TYPE_PREFIX):
        raise CheckpointError(
            f"{folder} is already compressed (type {policy_type!r}); give the dense policy instead."
        )
    return policy_type


def _check_plan(plan: Plan, shapes: dict[str, tuple[int, int]]) -> None:
    planned = {name: code.shape for name, code in plan.tensors.items()}
    if other := sorted(planned.items() ^ shapes.items()):
        raise CheckpointError(
            f"the plan was made for another policy: {other[0][0]} is missing on one side or has "
            "another shape. Plan this one anew."
        )
    if plan.rate < plan.rate_requested:
        raise CheckpointError(
            f"the plan reaches rate {plan.rate:.4f}, less than its rate_requested "
            f"({plan.rate_requested}). Choose codes of fewer bits, or lower rate_requested."
        )


def _encode_all(
    source: Path,
    plan: Plan,
    statistics: InputStatistics | None,
    on_progress: Callable[[int, int], None],
) -> dict[str, CompressedTensor]:
    def encode_one(name: str) -> CompressedTensor:
        try:
            hessian = statistics.hessian(name) if statistics else None
            with _open(source / WEIGHTS) as file:
                return encode(file.get_tensor(name), plan.tensors[name].spec, hessian)
        except EinSortError as error:
            raise type(error)(f"{name}: {error}") from error

    # Without feedback one matrix keeps all threads busy; with it, each matrix only one.
    at_once = min(MATRICES_AT_ONCE, torch.get_num_threads()) if statistics else 1
    coded, done = {}, 0
    with ThreadPoolExecutor(at_once) as pool:
        for name, compressed in zip(plan.tensors, pool.map(encode_one, plan.tensors), strict=True):
            coded[name] = compressed
            done += math.prod(compressed.shape)
            on_progress(done, plan.n_weights)
    return coded


def _remainder(source: Path, plan: Plan) -> dict[str, torch.Tensor]:
    with _open(source / WEIGHTS) as file:
        return {n: file.get_tensor(n) for n in file.keys() if n not in plan.tensors}  # noqa: SIM118


def _copy_side_files(source: Path, destination: Path) -> None:
    for item in source.iterdir():
        if item.is_dir():
            shutil.copytree(item, destination / item.name)
        elif item.name not in (WEIGHTS, CONFIG, "README.md"):  # the card describes the dense policy
            shutil.copy2(item, destination / item.name)


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged or truncated: {error}") from error
