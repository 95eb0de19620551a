"""`einsort-vla verify DIR [--against SRC]`: is it whole, and as close as planned?"""

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
from einsort_vla.cli.options import BackendOption
from einsort_vla.cli.run import INCOMPLETE
from einsort_vla.errors import CheckpointError, MissingDependency, UsageError

if TYPE_CHECKING:  # loads torch
    from einsort_vla.checkpoint import Checkpoint, DenseFolder

TOLERANCE = 2.0  # of the predicted error, which is that of Gaussian weights
FLOOR = 1e-6  # below it, float16 scales and not the code decide
SHOWN = 10


@dataclass(frozen=True)
class Verify:
    """Check a compressed folder: its SHA-256 sums, layouts, finite numbers, and with --against its
    errors. Check an exported one: every byte, and its actions against those stored with it.

    Exit code 1 if a matrix has more than twice the error that its plan predicts. Weights coded with
    a calibration have larger errors on purpose: they are shown, not judged.
    """

    folder: Positional[Path]
    """Folder that `compress` or `export` wrote."""
    against: Path | None = None
    """The dense policy it was made from. Every matrix is decoded and compared, and so are the
    actions of both, at the same observations with the same noise."""
    frames: str | None = None
    """Observations for the actions: files of eval/calibrate.py, or a LeRobot dataset's folder or
    hub id. Without them pictures of noise are used; they show only that it runs and is near."""
    looks: int = 8
    """Observations to compare actions at; 0 compares none."""

    backend: BackendOption = "decoded"
    runtime: Runtime = "auto"
    """What runs an exported policy; auto: TensorRT if engines were built, else ONNX Runtime."""

    def run(self, console: Console) -> int:
        from einsort_vla.checkpoint import DenseFolder, read_folder
        from einsort_vla.kernels import check_available
        from einsort_vla.runtime import commands, is_bundle

        check_available(self.backend)
        if is_bundle(self.folder):
            if self.against or self.frames:
                raise UsageError(
                    "an exported policy is verified with what was stored at its export; --against "
                    "and --frames are for compressed folders."
                )
            return commands.verify(self.folder, self.runtime, say_to(console))
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
        dense = DenseFolder(self.against)
        verdict = self._judge_weights(content, dense, console)
        if self.looks and dense.is_lerobot:
            self._show_actions(dense, console)
        return verdict

    def _judge_weights(self, content: "Checkpoint", dense: "DenseFolder", console: Console) -> int:
        rows = _compare(content, dense, console)
        worst = sorted(rows, key=lambda row: -row[1] / max(row[2], FLOOR))
        _print(worst[:SHOWN], console)
        failed = [row for row in rows if row[1] > TOLERANCE * row[2] + FLOOR]
        if content.is_calibrated:
            console.print("Coded with a calibration: weight errors are not judged.")
            return 0
        console.print(
            f"{len(rows) - len(failed)} of {len(rows)} matrices have at most {TOLERANCE:g} times "
            "the error predicted for Gaussian weights."
        )
        return INCOMPLETE if failed else 0

    def _show_actions(self, dense: "DenseFolder", console: Console) -> None:
        from einsort_vla.kernels import device_of
        from einsort_vla.layers import count_backends, count_fallbacks
        from einsort_vla.lerobot import (
            action_chunks,
            action_error,
            load_policy,
            made_up_observations,
            read_frames,
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
        except (MissingDependency, CheckpointError) as error:
            console.print(f"Actions were not compared: {error}", soft_wrap=True)
            return
        if self.frames:
            seen = read_frames(self.frames, self.looks)
        else:
            features = dense.config["input_features"]
            seen = made_up_observations(features, policy.statistics, self.looks)
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


def _compare(
    content: "Checkpoint", dense: "DenseFolder", console: Console
) -> list[tuple[str, float, float]]:
    """(name, relative squared error, predicted) of every coded matrix."""
    from einsort_vla.codec import decode

    names = {}  # of the dense file; what save_pretrained wrote has those in the model
    if not content.source_sha256:
        names = {own: stored for stored, own in dense.in_model.items()}
    elif dense.sha256 != content.source_sha256:
        raise CheckpointError(f"{dense.folder} does not hold the weights this was made from.")
    rows = []
    for name, compressed in track(content.coded.items(), "comparing", console=console):
        weight = dense.get(names.get(name, name)).float()
        missing = (weight - decode(compressed)).square().sum() / weight.square().sum()
        rows.append((name, float(missing), content.plan.tensors[name].distortion))
    return rows


def _print(rows: list[tuple[str, float, float]], console: Console) -> None:
    table = Table("matrix", "error", "predicted", title="Furthest from the prediction")
    for name, error, predicted in rows:
        table.add_row(name, f"{error:.2e}", f"{predicted:.2e}")
    console.print(table)
