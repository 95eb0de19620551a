"""`einsort-vla compress SRC DST --rate R`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TaskID
from tyro.conf import Positional

from einsort_vla.atomic import check_new
from einsort_vla.cli.options import CalibrateOption, CodecOption
from einsort_vla.cli.plan import from_yaml
from einsort_vla.cli.run import INCOMPLETE
from einsort_vla.errors import UsageError


@dataclass(frozen=True)
class Compress:
    """Write a compressed copy of a dense policy folder."""

    source: Positional[str]
    """Folder or hub id of a dense LeRobot policy or Transformers model."""
    destination: Positional[Path]
    """Folder to write; it must not exist."""
    rate: float | None = None
    """Share of the linear weights' bytes to remove, 0 to 0.95. Everything stored is counted."""
    plan: Path | None = None
    """Plan file instead of a rate; `einsort-vla plan` writes one."""
    codec: CodecOption = "leader"
    calibrate: CalibrateOption = None
    include: tuple[str, ...] = ("*",)
    """Patterns of tensor names that may be coded, such as "*text_model*"."""
    exclude: tuple[str, ...] = ()
    """Patterns of names that stay dense although --include has them. They count in the rate."""

    def run(self, console: Console) -> int:
        from einsort_vla.checkpoint import DenseFolder, compress_folder, plan_folder
        from einsort_vla.cli.calibration import calibration_of
        from einsort_vla.codec import Codec
        from einsort_vla.lerobot import resolve_folder

        if (self.rate is None) == (self.plan is None):
            raise UsageError("compress takes either --rate or --plan.")
        check_new(self.destination)
        codec = Codec.parse(self.codec)
        dense = DenseFolder(resolve_folder(self.source))
        statistics = calibration_of(self.calibrate, dense, console)
        try:
            with Progress(console=console) as progress:
                if self.rate is None:
                    assert self.plan is not None
                    plan = from_yaml(self.plan)
                else:
                    patterns, planning = (self.include, self.exclude), _bar(progress, "planning")
                    plan = plan_folder(dense, self.rate, codec, statistics, *patterns, planning)
                coding = _bar(progress, "coding weights")
                summary = compress_folder(dense, self.destination, plan, statistics, coding)
        except KeyboardInterrupt:
            console.print("Stopped. The same command goes on where it was.")
            return INCOMPLETE
        if plan.rate < 0:
            console.print(
                "Matrices that bfloat16 cannot hold are kept in float16 or float32. Rates count "
                "from bfloat16's 16 bits a weight: this one is negative."
            )
        console.print(
            f"{self.destination}: rate {plan.rate:.4f} (requested {plan.rate_requested}), "
            f"{plan.bits_per_weight:.3f} bits a weight, weight file "
            f"{summary.dense_bytes / 1e6:.2f} MB -> {summary.compressed_bytes / 1e6:.2f} MB."
        )
        return 0


def _bar(progress: Progress, text: str) -> Callable[[int, int], None]:
    """A progress bar that appears with its first step."""
    tasks: list[TaskID] = []

    def advance(done: int, total: int) -> None:
        if not tasks:
            tasks.append(progress.add_task(text, total=total))
        progress.update(tasks[0], completed=done)

    return advance
