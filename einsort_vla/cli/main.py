"""Dispatch of `einsort-vla`."""

from typing import Annotated, Any

from einsort_vla.cli.run import run_command


def main() -> None:
    """Entry point of the console script."""
    from einsort_vla.cli.compress import Compress
    from einsort_vla.cli.inspect import Inspect

    try:
        import tyro

        commands: Any = (
            Annotated[Compress, tyro.conf.subcommand("compress")]
            | Annotated[Inspect, tyro.conf.subcommand("inspect")]
        )
    except ImportError:
        commands = None  # run_command says what to install
    run_command(commands, lambda command, console: command.run(console), "einsort-vla")
