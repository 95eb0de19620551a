"""`einsort-vla merge RUN RUN --output DIR`: one report of shards that ran on several machines."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from tyro.conf import Positional

from einsort_vla.checkpoint import check_new
from einsort_vla.cli.run import INCOMPLETE
from einsort_vla.errors import MissingDependency
from einsort_vla.results import PAGE


@dataclass(frozen=True)
class Merge:
    """Join run folders of one evaluation: same policy, arms and protocol, other tasks or episodes.

    An episode that several have counts once, and must have ended alike.
    """

    runs: Positional[tuple[Path, ...]]
    """Run folders, each with run.json and episodes.jsonl."""
    output: Path
    """Run folder to write; it must not exist."""

    def run(self, console: Console) -> int:
        try:
            from einsort_vla.results.merge import merge_runs
            from einsort_vla.results.summary import print_summary
        except ImportError as error:
            raise MissingDependency(
                f"{error}. Install what reports need with: pip install 'einsort-vla[eval]'"
            ) from error
        check_new(self.output)
        report = merge_runs(self.runs, self.output)
        print_summary(report, console)
        console.print(f"Report: {self.output / PAGE}", highlight=False, soft_wrap=True)
        return 0 if report["complete"] else INCOMPLETE
