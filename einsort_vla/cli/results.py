"""`einsort-vla report RUN` and `merge RUN RUN`: results of an evaluation, made anew or joined."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from tyro.conf import Positional

from einsort_vla.checkpoint import check_new
from einsort_vla.cli.run import INCOMPLETE
from einsort_vla.errors import MissingDependency
from einsort_vla.results import PAGE


@dataclass(frozen=True)
class Report:
    """Make report.json, report.html and report.md of a run from run.json and episodes.jsonl."""

    folder: Positional[Path]
    """Folder that an evaluation wrote."""

    def run(self, console: Console) -> int:
        _check_installed()
        from einsort_vla.results.page import write_pages
        from einsort_vla.results.report import write_report

        report = write_report(self.folder)
        write_pages(report, self.folder)
        return _tell(report, self.folder, console)


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
        _check_installed()
        from einsort_vla.results.merge import merge_runs

        check_new(self.output)
        return _tell(merge_runs(self.runs, self.output), self.output, console)


def _check_installed() -> None:
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
        import scipy  # noqa: F401
    except ImportError as error:
        raise MissingDependency(
            f"{error}. Install what reports need with: pip install 'einsort-vla[eval]'"
        ) from error


def _tell(report: dict[str, Any], folder: Path, console: Console) -> int:
    from einsort_vla.results.summary import print_summary

    print_summary(report, console)
    console.print(f"Report: {folder / PAGE}", highlight=False, soft_wrap=True)
    return 0 if report["complete"] else INCOMPLETE
