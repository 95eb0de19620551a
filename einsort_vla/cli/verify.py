"""`einsort-vla verify DIR [--against SRC]`: is it whole, and what coding its source gives?"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from rich.console import Console
from rich.progress import track
from rich.table import Table
from tyro.conf import Positional

from einsort_vla.cli.bundle import Runtime, say_to
from einsort_vla.cli.options import BackendOption, TrustKeyOption
from einsort_vla.cli.run import INCOMPLETE
from einsort_vla.errors import CheckpointError, MissingDependency, UsageError

if TYPE_CHECKING:  # loads torch
    from einsort_vla.checkpoint import Checkpoint, Comparison, DenseFolder
    from einsort_vla.lerobot import Observation

FLOOR = 1e-9  # of errors that are compared
SHOWN = 10


@dataclass(frozen=True)
class Verify:
    """Check a compressed folder: its SHA-256 sums, layouts, finite numbers, and with --against that
    it is what compressing that source gives. Check an exported one: every byte, and its actions
    against those stored with it.

    --against codes every matrix anew, which takes as long as `compress` did. Exit code 1 if a row
    or a matrix has a larger error than coding it anew leaves, or if a tensor that is not coded
    differs from the source's in any bit. With a calibration, rows are further off on purpose: then
    a row must still resemble its source.
    """

    folder: Positional[Path]
    """Folder that `compress` or `export` wrote."""
    against: Path | None = None
    """The dense policy it was made from. Every tensor is compared, and so are the actions of both,
    at the same observations with the same noise."""
    frames: str | None = None
    """Observations for the actions: files of eval/calibrate.py, or a LeRobot dataset's folder or
    hub id. Without them pictures of noise are used; they show only that it runs and is near."""
    looks: int = 8
    """Observations to compare actions at; 0 compares none."""

    backend: BackendOption = "decoded"
    runtime: Runtime = "auto"
    """What runs an exported policy; auto: TensorRT if engines were built here, else ONNX
    Runtime."""
    trust_key: TrustKeyOption = ()

    def run(self, console: Console) -> int:
        from einsort_vla.runtime import commands, is_bundle

        if self.looks < 0:
            raise UsageError(f"--looks {self.looks} is below 0; 0 compares no actions.")
        if is_bundle(self.folder):  # which needs no torch
            if self.against or self.frames:
                raise UsageError(
                    "an exported policy is verified with what was stored at its export; --against "
                    "and --frames are for compressed folders."
                )
            return commands.verify(self.folder, self.runtime, self.trust_key, say_to(console))
        from einsort_vla.checkpoint import DenseFolder, manifest, read_folder
        from einsort_vla.kernels import check_available

        check_available(self.backend)
        if self.trust_key:
            manifest.check_signed(self.folder, self.trust_key)
        content = read_folder(self.folder)
        prints = "all files have their SHA-256"
        if not content.has_fingerprints:
            prints = "no fingerprints, as Transformers' save_pretrained wrote it"
        console.print(
            f"{self.folder}: {prints}; {len(content.coded)} coded "
            f"matrices and {len(content.dense)} dense tensors are as the plan says.",
        )
        if self.against is None:
            return 0
        from einsort_vla.lerobot import read_frames

        dense = DenseFolder(self.against)
        frames = read_frames(self.frames, self.looks) if self.frames and self.looks else []
        verdict = self._judge_weights(content, dense, console)
        if self.looks and dense.is_lerobot:
            self._show_actions(dense, frames, console)
        return verdict

    def _judge_weights(self, content: "Checkpoint", dense: "DenseFolder", console: Console) -> int:
        from einsort_vla.checkpoint import compare_matrices, compare_rest

        if content.source_sha256 not in (None, dense.sha256):
            raise CheckpointError(
                f"{dense.folder} does not hold the weights that {self.folder} was made from. Give "
                "the dense folder that was compressed."
            )
        faults = compare_rest(content, dense)
        matrices, n = compare_matrices(content, dense), len(content.coded)
        found = list(track(matrices, "coding anew", n, console=console))
        _print(found, console)
        faults += [f"{own.name}: {own.fault}" for own in found if own.fault]
        for fault in faults[:SHOWN]:
            console.print(f"Wrong: {fault}.", soft_wrap=True)
        if faults:
            console.print(
                f"{len(faults)} of {n + len(content.dense)} tensors differ from what compressing "
                "this source gives.",
                soft_wrap=True,
            )
            return INCOMPLETE
        n_same, n_rest = sum(own.is_same for own in found), len(content.dense)
        rest = f"{n_rest} other tensors are the source's bit for bit."
        if content.source_sha256 is None:  # `save_pretrained` wrote it
            rest = f"{n_rest} other tensors were not compared."
        console.print(f"{_passed(n, n_same, content.is_calibrated)} {rest}", soft_wrap=True)
        return 0

    def _show_actions(
        self, dense: "DenseFolder", frames: "list[Observation]", console: Console
    ) -> None:
        from einsort_vla.kernels import device_of
        from einsort_vla.layers import count_backends, count_fallbacks
        from einsort_vla.lerobot import (
            action_chunks,
            action_error,
            load_policy,
        )

        needed = 4 * sum(math.prod(stored.shape) for stored in dense.tensors.values())
        if needed > (free := psutil.virtual_memory().available):
            console.print(
                f"Actions were not compared: the dense policy takes {needed / 1e9:.1f} GB in "
                f"float32, and {free / 1e9:.1f} GB are free."
            )
            return
        try:
            policy = load_policy(str(dense.folder), device_of(self.backend))
            seen = frames or policy.made_up_observations(self.looks)
        except (MissingDependency, CheckpointError) as error:
            console.print(f"Actions were not compared: {error}", soft_wrap=True)
            return
        expected = action_chunks(policy, seen)
        del policy  # the two need not be in memory at once
        coded = load_policy(str(self.folder), device_of(self.backend), self.backend)
        found = action_chunks(coded, seen)
        counts = ", ".join(f"{name} {n}" for name, n in count_backends(coded.module).items())
        console.print(
            f"Executed actions at {len(seen)} {'given' if self.frames else 'made-up'} "
            f"observations: {math.sqrt(action_error(found, expected)):.3g} standard deviations "
            f"apart (root mean square), at most {abs(found - expected).max():.3g} in the robot's "
            f"units. Coded layers by backend: {counts}.",
            soft_wrap=True,
        )
        for fallback, n in count_fallbacks(coded.module).items():
            console.print(f"{n} of them: {fallback}", soft_wrap=True)


def _passed(n: int, n_same: int, is_calibrated: bool) -> str:
    """What was checked of the coded matrices, for people."""
    if is_calibrated:
        return (
            "Coded with a calibration, weights are further off on purpose: in all "
            f"{n} matrices every row has a bounded error and resembles its source."
        )
    return (
        f"All {n} matrices, and each of their rows, are as close to the source as coding it "
        f"anew makes them; {n_same} are the same bits."
    )


def _print(rows: list["Comparison"], console: Console) -> None:
    worst = sorted(rows, key=lambda row: (-row.error / max(row.expected, FLOOR), -row.error))
    table = Table("matrix", "error", "coded anew", title="Furthest from being coded anew")
    for row in worst[:SHOWN]:
        table.add_row(row.name, f"{row.error:.2e}", f"{row.expected:.2e}")
    console.print(table)
