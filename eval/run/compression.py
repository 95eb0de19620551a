"""The compressed policies of a run: made at its start, kept when it is resumed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console

from einsort_vla.checkpoint import WEIGHTS, DenseFolder, compress_folder, plan_folder, read_folder
from einsort_vla.codec import decode
from einsort_vla.errors import CheckpointError
from einsort_vla.export import GraphOptions, export_bundle, find_target
from einsort_vla.kernels import device_of
from einsort_vla.plan import InputStatistics, Plan
from einsort_vla.results import ArmFacts
from eval.closed_loop.request import Request
from eval.run.arms import DENSE, Arm, Variant, arm_name

CALIBRATE_BELOW_BITS = 2.4  # closed loop, docs/codec.md: 11/100 at 1.6 bits, 96/100 calibrated
BUNDLE_SUFFIX = ".onnx"


@dataclass(frozen=True)
class Compressed:
    """One compressed policy, not yet on disk."""

    codec: str
    rate: float
    plan: Plan

    @property
    def name(self) -> str:
        return f"{self.codec} {self.rate:g}"

    def path(self, folder: Path) -> Path:
        """Its place among the policies of a run."""
        return folder / self.name.replace(" ", "-")


def plan_all(
    request: Request, calibration: InputStatistics | None, console: Console
) -> list[Compressed]:
    """The plan of every compressed policy; a rate that a code cannot reach is refused here."""
    found = [
        Compressed(codec, rate, plan_folder(request.folder, rate, codec, calibration))
        for codec in request.codecs
        for rate in request.rates
    ]
    bits = min((c.plan.bits_per_weight for c in found), default=16.0)
    if calibration is None and bits < CALIBRATE_BELOW_BITS:
        console.print(
            f"Note: {bits:.1f} bits a weight without --calibrate. On the reference policy, "
            "calibration makes the difference below 2.4 bits: "
            "python eval/calibrate.py --output DIR",
            highlight=False,
        )
    return found


def list_arms(request: Request, planned: Sequence[Compressed], folder: Path) -> list[Arm]:
    """The dense policy and each compressed one in `folder`, at every delay."""
    settings, device = request.settings, device_of(request.settings.backend)
    variants = {DENSE: Variant(str(request.folder), device=device)}
    for made in planned:
        path = made.path(folder)
        bundle = path.with_name(path.name + BUNDLE_SUFFIX) if settings.runtime == "onnx" else None
        variants[made.name] = Variant(str(path), settings.backend, bundle, device)
    # Another backend adds in another order, and then the actions differ in their last bits.
    is_decoded = settings.backend == "dense" and settings.runtime == "torch"
    exact = {made.name for made in planned if made.plan.is_exact and is_decoded}
    return [
        Arm(
            arm_name(name, delay_ms), variant, delay_ms,
            None if name == DENSE else arm_name(DENSE, delay_ms), name in exact,
        )
        for delay_ms in request.delays_ms
        for name, variant in variants.items()
    ]  # fmt: skip


def describe_arms(request: Request, planned: Sequence[Compressed], folder: Path) -> list[ArmFacts]:
    """What run.json says of each arm; `weight_bytes` are None until its policy has been made."""
    by_path = {str(made.path(folder)): made for made in planned}
    return [
        _facts(arm, by_path.get(arm.variant.path)) for arm in list_arms(request, planned, folder)
    ]


def make_all(
    request: Request,
    planned: Sequence[Compressed],
    calibration: InputStatistics | None,
    folder: Path,
    console: Console,
) -> None:
    """Write all compressed policies, and their exports where ONNX Runtime is to run them.

    Raises:
        CheckpointError: what an earlier start of this run has made is of another code.
    """
    for k, made in enumerate(planned):
        path = made.path(folder)
        with console.status(f"Compressing to {made.name} ({k + 1} of {len(planned)})"):
            _compress_once(made.plan, request.folder, path, calibration)
        if request.settings.runtime == "onnx":
            with console.status(f"Exporting {made.name} to ONNX"):
                _export_once(path, path.with_name(path.name + BUNDLE_SUFFIX))


def _facts(arm: Arm, made: Compressed | None) -> ArmFacts:
    path = Path(arm.variant.path)
    facts = ArmFacts(
        name=arm.name,
        weight_bytes=_weight_bytes(path) if path.exists() else None,
        reference=arm.reference,
        delay_ms=arm.delay_ms,
        shares_episodes=arm.is_exact,
    )
    if made is None:
        return facts
    return replace(
        facts,
        codec=made.codec,
        rate_requested=made.rate,
        rate_achieved=made.plan.rate,
        bits_per_weight=made.plan.bits_per_weight,
        core_kept_fraction=made.plan.core_kept_fraction,
        order_bits_per_weight=made.plan.order_bits_per_weight,
    )


def _weight_bytes(folder: Path) -> int:
    """Of one weight file, or of its shards."""
    shards = list(folder.glob("model-*.safetensors"))
    return sum(path.stat().st_size for path in shards or [folder / WEIGHTS])


def _compress_once(
    plan: Plan, source: Path, destination: Path, statistics: InputStatistics | None
) -> None:
    if not destination.exists():
        compress_folder(source, destination, plan, statistics)
        if plan.is_exact:
            _check_exact(source, destination)
    elif read_folder(destination).plan != plan:
        raise CheckpointError(f"{destination} holds another code than this run asks for.")


def _check_exact(source: Path, destination: Path) -> None:
    """Such a policy is not run, as its episodes are those of the dense one: it must be that one."""
    dense = DenseFolder(source)
    for name, compressed in read_folder(destination).coded.items():
        if not torch.equal(decode(compressed), dense.get(name).float()):
            raise CheckpointError(f"{name} in {destination} is not what {source} holds.")


def _export_once(source: Path, destination: Path) -> None:
    if not destination.exists():
        export_bundle(source, destination, find_target("cpu"), GraphOptions())
