"""The subcommands of `einsort-vla`."""

from typing import Annotated

import tyro

from einsort_vla.cli.compress import Compress
from einsort_vla.cli.inspect import Inspect
from einsort_vla.cli.plan import MakePlan
from einsort_vla.cli.run import run_command

COMMANDS = (
    Annotated[Compress, tyro.conf.subcommand("compress")]
    | Annotated[MakePlan, tyro.conf.subcommand("plan")]
    | Annotated[Inspect, tyro.conf.subcommand("inspect")]
)


def run() -> None:
    """Parse the command line and run the subcommand it names."""
    run_command(COMMANDS, lambda command, console: command.run(console), "einsort-vla")
