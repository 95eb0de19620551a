"""`einsort-vla report RUN` and `merge RUN RUN`: results of an evaluation, made anew or joined."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from tyro.conf import Positional

from einsort_vla.atomic import check_new
from einsort_vla.cli.run import INCOMPLETE
from einsort_vla.errors import CheckpointError, MissingDependency
from einsort_vla.results.run import PAGE, REPORT

if TYPE_CHECKING:  # loads torch, or what is installed with the extra `eval` alone
    from einsort_vla.results.card import Identity
    from einsort_vla.results.report import Report as Found
    from einsort_vla.results.sources import Sources


@dataclass(frozen=True)
class Report:
    """Make report.json, report.html and report.md of a run; or of a folder of runs, joined.

    A folder of runs may hold closed-loop runs of one policy, runs of eval/textvqa.py and
    eval/language.py, exported bundles with what `bench` measured, and copies of such receipts.
    """

    folder: Positional[Path]
    """Folder that an evaluation wrote, or one that holds several such folders."""
    card: Path | None = None
    """Compressed checkpoint folder. Its results go into its model card, where they replace earlier
    results and nothing else."""

    def run(self, console: Console) -> int:
        _check_installed()
        from einsort_vla.results.card import checkpoint_text
        from einsort_vla.results.joined import check_joinable
        from einsort_vla.results.sources import read_sources

        sources = read_sources(self.folder)
        check_joinable(sources)
        text = checkpoint_text(sources, _identify(self.card)) if self.card else ""
        code = _write_pages(self.folder, sources, console)
        if self.card:
            from einsort_vla.checkpoint.card import CARD, write_results

            write_results(self.card, text)
            console.print(f"Model card: {self.card / CARD}", soft_wrap=True)
        return code


@dataclass(frozen=True)
class Merge:
    """Join run folders of one evaluation: same policy, arms and protocol, other tasks or episodes.

    An episode that is in several runs counts once, and must have ended alike in all of them.
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


def _identify(folder: Path) -> "Identity":
    """What a checkpoint is, once it is sure that its card can take results."""
    from einsort_vla.checkpoint import WEIGHTS, file_sha256, read_folder
    from einsort_vla.checkpoint.card import read_card
    from einsort_vla.results.arms import Code
    from einsort_vla.results.card import Identity

    found = read_folder(folder)
    read_card(folder)
    code = Code(str(found.plan.codec), found.plan.rate_requested)
    weights = file_sha256(folder / WEIGHTS)
    return Identity(folder.name, code, found.source_sha256 or "", weights, found.is_calibrated)


def _write_pages(folder: Path, sources: "Sources", console: Console) -> int:
    from einsort_vla.results.page import write_joined, write_pages
    from einsort_vla.results.report import write_report
    from einsort_vla.results.sources import is_single
    from einsort_vla.results.summary import print_joined

    if is_single(folder) and sources.runs:
        (run,) = sources.runs
        if run.report is None:
            raise CheckpointError(
                f"{folder} has a run that has found nothing yet (no {REPORT}). Run the same "
                "command again with --resume."
            )
        write_report(run.report, folder)
        write_pages(run.report, folder)
        return _tell(run.report, folder, console)
    write_joined(sources, folder)
    print_joined(sources, console)
    console.print(f"Report: {folder / PAGE}", soft_wrap=True)
    return INCOMPLETE if sources.unfinished else 0


def _check_installed() -> None:
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
        import scipy  # noqa: F401
    except ImportError as error:
        raise MissingDependency(
            f"{error}. Install what reports need with: pip install 'einsort-vla[eval]'"
        ) from error


def _tell(report: "Found", folder: Path, console: Console) -> int:
    from einsort_vla.results.summary import print_report

    print_report(report, console)
    console.print(f"Report: {folder / PAGE}", soft_wrap=True)
    return 0 if report.complete else INCOMPLETE
