"""The folder of one run: what it holds, that no two runs are mixed in it, and its report."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from einsort_vla.atomic import PARTIAL, alone_in, writing
from einsort_vla.checkpoint import file_sha256
from einsort_vla.cli.run import INCOMPLETE
from einsort_vla.errors import UsageError
from einsort_vla.results.page import write_pages
from einsort_vla.results.report import Report, write_report
from einsort_vla.results.run import PAGE, RUN, Run, read_run, write_run
from einsort_vla.results.summary import print_report
from eval.run.provenance import ROOT, describe
from eval.run.settings import RunSettings

# Where a run is kept, who runs it and what else is written decide no result.
FREE = frozenset(("output", "resume", "workers", "ray", "video", "record", "baseline", "track"))


def comparable(settings: RunSettings) -> dict[str, Any]:
    """The settings that decide results, as plain data."""
    decisive = {key: value for key, value in asdict(settings).items() if key not in FREE}
    return {k: str(v) if isinstance(v, Path) else v for k, v in decisive.items()}


def describe_run(
    kind: str,
    script: str,
    model: str,
    settings: RunSettings,
    inputs_sha256: Mapping[str, str],
    packages: Sequence[str] = (),
) -> Run:
    """What run.json says of a run, with the fingerprint of what it calibrates on, too."""
    inputs, source = dict(inputs_sha256), settings.calibrate
    if source and Path(source).is_file():
        inputs["calibrate"] = file_sha256(Path(source))
    return describe(kind, script, model, comparable(settings), inputs, packages)


@contextmanager
def run_folder(
    name: str, settings: RunSettings, describe_in: Callable[[Path], Run]
) -> Iterator[Path]:
    """The folder of a run, with its run.json in it; nobody else works there meanwhile.

    Args:
        name: where no folder is named, it is outputs/NAME-TIME.
        settings: that name it, and say whether a run in it is to go on.
        describe_in: gives what run.json says of a run in this folder; asked of a new one alone.

    Raises:
        UsageError: it holds something else, there is nothing to resume, or another process is at
            work in it.
    """
    output = settings.output or ROOT / "outputs" / time.strftime(f"{name}-%Y%m%d-%H%M%S")
    _prepare(output, comparable(settings), settings.resume)
    refusal = (
        f"another process is at work in {output}. Wait for it, stop it, or use another --output."
    )
    with alone_in(output, refusal):
        if not (output / RUN).exists():
            write_run(output, describe_in(output))
        yield output


def publish(report: Report, output: Path, console: Console) -> int:
    """Write the report and its pages, print it; the exit code of its command."""
    write_report(report, output)
    write_pages(report, output)
    print_report(report, console)
    console.print(f"Report: {output / PAGE}", soft_wrap=True)
    return 0 if report.complete else INCOMPLETE


def _prepare(output: Path, config: Mapping[str, Any], resume: bool) -> None:
    """Make a new folder; of an old one, refuse what is not the run to go on with."""
    if (output / RUN).exists():
        earlier = read_run(output).config
        if not resume:
            raise UsageError(f"{output} holds a run already. Use --resume, or another --output.")
        if changed := sorted(k for k in {*config, *earlier} if config.get(k) != earlier.get(k)):
            names = ", ".join(f"--{key.replace('_', '-')} {earlier.get(key)!s}" for key in changed)
            raise UsageError(
                f"{output} holds another run, with {names}. "
                "Resume with the same settings, or use another --output."
            )
        return
    if resume:
        raise UsageError(f"there is no run to resume in {output}.")
    if output.exists() and not output.is_dir():
        raise UsageError(f"--output {output} is a file. Name a folder.")
    if output.exists() and any(path.suffix != PARTIAL for path in output.iterdir()):
        raise UsageError(f"{output} is not empty and holds no run. Use another --output.")
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
