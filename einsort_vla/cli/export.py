"""`einsort-vla export DIR OUT`: a bundle for a device."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import Progress
from tyro.conf import Positional

from einsort_vla.claims import claim
from einsort_vla.errors import UsageError, unknown_name

N_GRAPHS = 3


@dataclass(frozen=True)
class Export:
    """Export a compressed policy as ONNX graphs over its coded weights, with a TensorRT plugin that
    computes on them, and with programs that build, verify and time it on the device."""

    folder: Positional[Path]
    """Folder that `compress` wrote."""
    out: Positional[Path]
    """Folder to make."""
    target: str = "cpu"
    """cpu (ONNX Runtime), rtx30, rtx40, rtx50, orin or thor."""
    precision: str | None = None
    """What engines compute in: float16 (SmolVLA's default), bfloat16 (pi0's) or float32. Sums and
    the flow are always in float32."""
    batch: int = 1
    """Observations at once."""
    dynamic_batch: bool = False
    """Take any number of observations up to --batch."""
    frames: Annotated[str | None, tyro.conf.arg(metavar="SOURCE")] = None
    """Observations to verify the device with: files of eval/calibrate.py, or a LeRobot dataset's
    folder or hub id. Without them pictures of noise are used."""
    looks: int = 4
    """Use at most this many of them; of noise there are four."""

    def run(self, console: Console) -> int:
        from einsort_vla.export import GraphOptions, export_bundle, find_target
        from einsort_vla.families import PRECISIONS
        from einsort_vla.lerobot import read_frames
        from einsort_vla.runtime.manifest import MAX_BATCH

        target = find_target(self.target)
        if self.precision and self.precision not in PRECISIONS:
            raise unknown_name("precision", self.precision, PRECISIONS)
        if self.precision and target.capability is None:
            raise UsageError("--precision is what engines compute in; --target cpu has no engines.")
        options = GraphOptions(self.batch, self.dynamic_batch, self.precision)
        if not 1 <= self.batch <= MAX_BATCH or self.looks < 1:
            raise UsageError(f"--batch must be 1 to {MAX_BATCH}, --looks at least 1.")
        total = N_GRAPHS * (2 if target.capability else 1)
        with claim(self.out, self.folder) as out:
            looks = read_frames(self.frames, self.looks) if self.frames else []
            with Progress(console=console, transient=True) as progress:
                task = progress.add_task("tracing graphs", total=total)
                manifest = export_bundle(
                    self.folder, out, target, options, looks, lambda: progress.advance(task)
                )
        layers = {layer["name"] for part in manifest["parts"].values() for layer in part["layers"]}
        kept = manifest["source"]["kept_without_error"]
        console.print(
            f"{self.out}: {len(layers)} layers compute on coded weights, {len(kept)} that the plan "
            f"keeps without error are dense; {_size(self.out):.1f} MB for {target.what}.",
            soft_wrap=True,
        )
        steps = f"Next: einsort-vla verify {self.out}"
        if target.capability is not None:
            steps = "Next, on the device, in the copied folder: " + " ; ".join(
                f"python3 einsort-device.pyz {step} ." for step in ("build", "verify", "bench")
            )
        console.print(steps, soft_wrap=True)
        return 0


def _size(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
