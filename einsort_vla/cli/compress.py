"""`einsort-vla compress SRC DST --rate R`."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from tyro.conf import Positional

from einsort_vla.checkpoint import compress_folder, plan_folder
from einsort_vla.cli.options import CalibrationOption, CodecOption
from einsort_vla.cli.plan import from_yaml
from einsort_vla.errors import UsageError
from einsort_vla.plan import InputStatistics, Plan


@dataclass(frozen=True)
class Compress:
    """Write a compressed copy of a dense policy folder."""

    source: Positional[Path]
    """Folder of a dense LeRobot policy."""
    destination: Positional[Path]
    """Folder to write; it must not exist."""
    rate: float | None = None
    """Share of linear-weight bytes to remove, 0 to 0.95; all that is stored is counted."""
    plan: Path | None = None
    """Plan file instead of a rate; `einsort-vla plan` writes one."""
    codec: CodecOption = "leader"
    calibration: CalibrationOption = None

    def run(self, console: Console) -> int:
        statistics = InputStatistics.load(self.calibration) if self.calibration else None
        plan = self._plan(statistics)
        with Progress(console=console) as progress:
            task = progress.add_task("coding weights", total=plan.n_weights)
            summary = compress_folder(
                self.source,
                self.destination,
                plan,
                statistics,
                lambda done, total: progress.update(task, completed=done, total=total),
            )
        console.print(
            f"{self.destination}: rate {plan.rate:.4f} (requested {plan.rate_requested}), "
            f"{plan.bits_per_weight:.3f} bits a weight, weight file "
            f"{summary.dense_bytes / 1e6:.2f} MB -> {summary.compressed_bytes / 1e6:.2f} MB.",
            highlight=False,
        )
        return 0

    def _plan(self, statistics: InputStatistics | None) -> Plan:
        if (self.rate is None) == (self.plan is None):
            raise UsageError("compress takes either --rate or --plan.")
        if self.plan is not None:
            return from_yaml(self.plan)
        assert self.rate is not None
        return plan_folder(self.source, self.rate, self.codec, statistics)
