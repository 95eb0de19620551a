"""The subcommands of `einsort-vla`."""

from typing import Annotated

import tyro

from einsort_vla.cli.bundle import Audit, Bench, Build
from einsort_vla.cli.compress import Compress
from einsort_vla.cli.delta import Diff, Patch
from einsort_vla.cli.doctor import Doctor
from einsort_vla.cli.export import Export
from einsort_vla.cli.inspect import Inspect
from einsort_vla.cli.plan import MakePlan
from einsort_vla.cli.results import Merge, Report
from einsort_vla.cli.run import parse_and_run
from einsort_vla.cli.verify import Verify

COMMANDS = (
    Annotated[Compress, tyro.conf.subcommand("compress")]
    | Annotated[MakePlan, tyro.conf.subcommand("plan")]
    | Annotated[Inspect, tyro.conf.subcommand("inspect")]
    | Annotated[Verify, tyro.conf.subcommand("verify")]
    | Annotated[Diff, tyro.conf.subcommand("diff")]
    | Annotated[Patch, tyro.conf.subcommand("patch")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Build, tyro.conf.subcommand("build")]
    | Annotated[Bench, tyro.conf.subcommand("bench")]
    | Annotated[Audit, tyro.conf.subcommand("audit")]
    | Annotated[Merge, tyro.conf.subcommand("merge")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Doctor, tyro.conf.subcommand("doctor")]
)


def run() -> int:
    """Parse the command line and run the subcommand it names; returns the exit code."""
    return parse_and_run(COMMANDS, lambda command, console: command.run(console), "einsort-vla")
