"""`einsort-vla compress SRC DST --rate R`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress, TaskID
from tyro.conf import Positional

from einsort_vla.claims import claim, kept
from einsort_vla.cli.console import saved, size
from einsort_vla.cli.options import CalibrateOption, CodecOption, RateOption, SizeOption, check_goal
from einsort_vla.cli.plan import describe_left, from_yaml
from einsort_vla.ending import keeping
from einsort_vla.errors import UsageError
from einsort_vla.names import DEFAULT_FORM

if TYPE_CHECKING:  # loads torch
    from einsort_vla.checkpoint import CompressionSummary, DenseFolder

SHOWN = 3  # names in a sentence


@dataclass(frozen=True)
class Compress:
    """Write a compressed copy of a dense policy folder."""

    source: Positional[str]
    """Folder or hub id of a dense LeRobot policy or Transformers model."""
    destination: Positional[Path]
    """Folder to write; it must not exist."""
    rate: RateOption = None
    """Share of the linear weights' bytes to remove, 0 to 0.95. Everything stored is counted."""
    size: SizeOption = None
    """Bytes of the whole weight file instead of a rate: 300MB, 1.2GiB."""
    plan: Path | None = None
    """Plan file instead of both; `einsort-vla plan` writes one."""
    codec: CodecOption = DEFAULT_FORM
    calibrate: CalibrateOption = None
    include: tuple[str, ...] = ("*",)
    """Patterns of tensor names that may be coded, such as "*text_model*"."""
    exclude: tuple[str, ...] = ()
    """Patterns of names that stay dense although --include has them. They count in the rate."""

    def run(self, console: Console) -> int:
        from einsort_vla.checkpoint import DenseFolder, compress_folder, plan_to_fit
        from einsort_vla.cli.calibration import calibration_of, say_unless_loads
        from einsort_vla.codec import Codec
        from einsort_vla.lerobot import resolve_folder
        from einsort_vla.plan import candidates_of

        self._check()
        codec = Codec.parse(self.codec)
        local = [Path(self.source)] if Path(self.source).exists() else []
        with keeping(lambda: kept(self.destination)), claim(self.destination, *local) as own:
            dense = DenseFolder(resolve_folder(self.source))
            say_unless_loads(dense, console)
            statistics = calibration_of(self.calibrate, dense, console)
            with Progress(console=console) as progress:
                if self.plan is not None:
                    plan = from_yaml(self.plan)
                else:
                    patterns, planning = (self.include, self.exclude), _bar(progress, "planning")
                    found = candidates_of(dense, codec, *patterns, planning)
                    plan = plan_to_fit(dense, found, self.rate, self.size, statistics)
                coding = _bar(progress, "coding weights")
                summary = compress_folder(dense, own, plan, statistics, coding)
        _print_summary(summary, self.destination, dense, console)
        for note in summary.notes:
            console.print(note, soft_wrap=True)
        if plan.rate < 0:
            console.print(
                "Matrices that bfloat16 cannot hold are kept in float16 or float32. Rates count "
                "from bfloat16's 16 bits a weight: this one is negative."
            )
        return 0

    def _check(self) -> None:
        """Refuse options that contradict each other, or would do nothing."""
        check_goal("compress", rate=self.rate, size=self.size, plan=self.plan)
        if self.plan is None:
            return
        given = (self.codec, self.include, self.exclude)
        for name, own, usual in zip(("codec", "include", "exclude"), given, _OF_RATES, strict=True):
            if own != usual:
                raise UsageError(
                    f"--{name} does nothing with --plan: the plan has the code of each matrix. "
                    "Edit the plan, or give --rate."
                )


_OF_RATES = (Compress.codec, Compress.include, Compress.exclude)  # where nothing is given


def _print_summary(
    summary: "CompressionSummary", destination: Path, dense: "DenseFolder", console: Console
) -> None:
    plan = summary.plan
    console.print(
        f"{destination}: {100 * summary.share_coded:.1f} % of the weights coded, file "
        f"{saved(summary.share_saved)} ({size(summary.dense_bytes)} -> "
        f"{size(summary.compressed_bytes)}); rate {plan.rate:.4f} of the compressible "
        f"matrices (requested {plan.rate_requested}), {plan.bits_per_weight:.3f} bits a weight.",
        soft_wrap=True,
    )
    if left := describe_left(plan, dense):
        console.print(left, soft_wrap=True)
    if summary.unseen:
        more = ", ..." if len(summary.unseen) > SHOWN else ""
        console.print(
            f"{len(summary.unseen)} of {len(plan.tensors)} matrices were coded as without a "
            "calibration: their layers did not run, or on zeros alone "
            f"({', '.join(summary.unseen[:SHOWN])}{more}).",
            soft_wrap=True,
        )


def _bar(progress: Progress, text: str) -> Callable[[int, int], None]:
    """A progress bar that appears with its first step."""
    tasks: list[TaskID] = []

    def advance(done: int, total: int) -> None:
        if not tasks:
            tasks.append(progress.add_task(text, total=total))
        progress.update(tasks[0], completed=done)

    return advance
