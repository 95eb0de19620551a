"""`einsort-vla report RUN`: the report of a run, made anew from its episodes."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from tyro.conf import Positional

from einsort_vla.cli.run import INCOMPLETE
from einsort_vla.errors import MissingDependency


@dataclass(frozen=True)
class Report:
    """Make report.json, report.html and report.md of a run from run.json and episodes.jsonl."""

    folder: Positional[Path]
    """Folder that an evaluation wrote."""

    def run(self, console: Console) -> int:
        try:
            from einsort_vla.results.page import write_pages
            from einsort_vla.results.report import write_report
            from einsort_vla.results.summary import print_summary
        except ImportError as error:
            raise MissingDependency(
                f"{error}. Install what reports need with: pip install 'einsort-vla[eval]'"
            ) from error
        report = write_report(self.folder)
        page = write_pages(report, self.folder)
        print_summary(report, console)
        console.print(f"Report: {page}", highlight=False, soft_wrap=True)
        return 0 if report["complete"] else INCOMPLETE
