"""The compressed copies of a run: planned from its settings, made once, described for results."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from msgspec.structs import replace
from rich.console import Console

from einsort_vla.checkpoint import (
    DenseFolder,
    compress_folder,
    plan_candidates,
    plan_folder,
    plan_size,
    read_folder,
    weight_files,
)
from einsort_vla.cli.options import read_size
from einsort_vla.codec import Codec, decode
from einsort_vla.errors import CheckpointError, UsageError
from einsort_vla.names import DEFAULT_FORM
from einsort_vla.plan import LayerStatistics, Plan, candidates_of, check_rate
from einsort_vla.results.arms import ArmFacts
from eval.run.arms import DENSE, Arm, Variant, arm_name
from eval.run.settings import RunSettings

BUNDLE_SUFFIX = ".onnx"
MOST_RATES = 1000  # of a series


@dataclass(frozen=True)
class Copy:
    """A compressed copy of a dense model: planned, and on disk once it has been made."""

    codec: Codec
    rate: float
    plan: Plan

    @property
    def name(self) -> str:
        return f"{self.codec} {self.rate:g}"

    def path(self, folder: Path) -> Path:
        """Its place among the copies of a run."""
        return folder / self.name.replace(" ", "-")


@dataclass(frozen=True)
class Goals:
    """What copies are asked for: each codec at each rate above 0, or with each size of its file."""

    codecs: tuple[Codec, ...]
    rates: tuple[float, ...]
    sizes: tuple[int, ...]  # bytes

    @property
    def has_copies(self) -> bool:
        return bool(self.rates or self.sizes)


def check_arms(settings: RunSettings) -> Goals:
    """What is asked for.

    Raises:
        UsageError: one of it cannot be, or rates and sizes are given, or neither.
    """
    codecs = tuple(dict.fromkeys(map(Codec.parse, settings.codec.split(","))))
    if (settings.rate is None) == (settings.size is None):
        what = "neither was" if settings.rate is None else "both were"
        raise UsageError(
            f"give --rate, such as --rate 0.5, or --size, such as --size 300MB; {what}."
        )
    if settings.size is not None:
        return Goals(codecs, (), tuple(dict.fromkeys(map(read_size, settings.size.split(",")))))
    assert settings.rate is not None
    return Goals(codecs, tuple(rate for rate in read_rates(settings.rate) if rate), ())


def read_rates(text: str) -> tuple[float, ...]:
    """`0.5`, `0,0.25,0.5`, or a series: `0,0.1,...,0.9`.

    Raises:
        UsageError: the text is no such list, or a rate is outside its range.
    """
    parts = [part.strip() for part in text.split(",")]
    try:
        rates = _series(parts) if "..." in parts else [float(part) for part in parts]
    except (ValueError, OverflowError, ZeroDivisionError):
        raise UsageError(
            f"--rate {text!r} cannot be read. Give a rate such as 0.5, a list such as 0,0.25,0.5, "
            "or a series such as 0,0.1,...,0.9."
        ) from None
    for rate in rates:
        check_rate(rate)
    return tuple(dict.fromkeys(map(shown, rates)))


def shown(number: float) -> float:
    """A rate or delay as it is in names: two that share a name are one."""
    return float(f"{number:g}")


def _series(parts: Sequence[str]) -> list[float]:
    first, second, dots, last = parts
    if dots != "...":
        raise ValueError
    step = float(second) - float(first)
    n = round((float(last) - float(first)) / step)
    if not 1 <= n <= MOST_RATES or abs(float(first) + n * step - float(last)) > 1e-9:
        raise ValueError
    return [round(float(first) + k * step, 10) for k in range(n + 1)]


def plan_copies(
    dense: DenseFolder, settings: RunSettings, calibration: LayerStatistics | None = None
) -> list[Copy]:
    """A copy for each codec and each rate above 0; weights are read once for all rates of a codec.

    Raises:
        UsageError: a rate that a code cannot reach, or a pattern that fits no matrix.
    """
    goals, copies = check_arms(settings), []
    for codec in goals.codecs if goals.has_copies else ():
        found = candidates_of(dense, codec, *settings.patterns)
        plans = [plan_candidates(dense, found, rate, calibration) for rate in goals.rates]
        plans += [plan_size(dense, found, size, calibration) for size in goals.sizes]
        copies += [Copy(codec, plan.rate_requested, plan) for plan in plans]
    return list({copy.name: copy for copy in copies}.values())


def list_arms(
    dense: DenseFolder,
    copies: Sequence[Copy],
    folder: Path,
    delays_ms: Sequence[float] = (0.0,),
    backend: str = "decoded",
    device: str = "cpu",
    runtime: str = "torch",
) -> list[Arm]:
    """The dense model and each copy, which is or will be in `folder`, at every delay.

    With the `runtime` "onnx", ONNX Runtime runs the exports of all of them; that of the dense model
    is made of a copy without error.
    """
    variants = {DENSE: Variant(str(dense.folder), device=device)}
    if runtime == "onnx":
        path = folder / DENSE
        variants[DENSE] = Variant(str(path), bundle=_bundle(path), device=device)
    for copy in copies:
        path = copy.path(folder)
        bundle = _bundle(path) if runtime == "onnx" else None
        variants[copy.name] = Variant(str(path), backend, bundle, device)
    # Another backend adds in another order, and then the results differ in their last bits.
    is_decoded = backend == "decoded" and runtime == "torch"
    exact = {copy.name for copy in copies if copy.plan.is_exact and is_decoded}
    return [
        Arm(
            arm_name(name, delay_ms), variant, delay_ms,
            None if name == DENSE else arm_name(DENSE, delay_ms), name in exact,
        )
        for delay_ms in delays_ms
        for name, variant in variants.items()
    ]  # fmt: skip


def describe_arms(copies: Sequence[Copy], arms: Sequence[Arm]) -> list[ArmFacts]:
    """What is said of each arm; `weight_bytes` are None until its model has been made."""
    by_name = {copy.path(Path()).name: copy for copy in copies}
    return [_describe(by_name[arm.folder.name] if arm.reference else None, arm) for arm in arms]


def _describe(copy: Copy | None, arm: Arm) -> ArmFacts:
    facts = ArmFacts(
        name=arm.name,
        weight_bytes=weight_bytes(arm.folder) if arm.folder.exists() else None,
        reference=arm.reference,
        delay_ms=arm.delay_ms,
        shares_episodes=arm.is_exact,
    )
    if copy is None:
        return facts
    return replace(
        facts,
        codec=str(copy.codec),
        rate_requested=copy.rate,
        rate_achieved=copy.plan.rate,
        bits_per_weight=copy.plan.bits_per_weight,
        core_kept_fraction=copy.plan.core_kept_fraction,
        order_bits_per_weight=copy.plan.order_bits_per_weight,
    )


def weight_bytes(folder: Path) -> int:
    """Bytes of the weight files of a model, dense or compressed."""
    return sum(file.stat().st_size for file in weight_files(folder))


def make_copies(
    dense: DenseFolder,
    copies: Sequence[Copy],
    folder: Path,
    calibration: LayerStatistics | None,
    console: Console,
    runtime: str = "torch",
) -> None:
    """Write all copies, and exports for the `runtime` "onnx"; what is there is used again.

    Raises:
        CheckpointError: what an earlier start has made is of another code.
    """
    to_make = [(copy.name, copy.path(folder), copy.plan, calibration) for copy in copies]
    if runtime == "onnx":
        exact = plan_folder(dense, 0.0, Codec(DEFAULT_FORM))
        to_make.insert(0, (DENSE, folder / DENSE, exact, None))
    for k, (name, path, plan, statistics) in enumerate(to_make):
        path.parent.mkdir(parents=True, exist_ok=True)
        with console.status(f"Compressing to {name} ({k + 1} of {len(to_make)})"):
            _compress_once(plan, dense, path, statistics)
        if runtime == "onnx":
            with console.status(f"Exporting {name} to ONNX"):
                _export_once(path, _bundle(path))


def _bundle(path: Path) -> Path:
    return path.with_name(path.name + BUNDLE_SUFFIX)


def _compress_once(
    plan: Plan, dense: DenseFolder, destination: Path, statistics: LayerStatistics | None
) -> None:
    if not destination.exists():
        compress_folder(dense, destination, plan, statistics)
        if plan.is_exact:
            _check_exact(dense, destination)
    elif read_folder(destination).plan != plan:
        raise CheckpointError(f"{destination} holds another code than this run asks for.")


def _check_exact(dense: DenseFolder, destination: Path) -> None:
    """Such a copy is not run, as it does what the dense model does: it must be that one."""
    for name, compressed in read_folder(destination).coded.items():
        if not torch.equal(decode(compressed), dense.get(name).float()):
            raise CheckpointError(f"{name} in {destination} is not what {dense.folder} holds.")


def _export_once(source: Path, destination: Path) -> None:
    from einsort_vla.export import GraphOptions, export_bundle, find_target

    if not destination.exists():
        export_bundle(source, destination, find_target("cpu"), GraphOptions())
