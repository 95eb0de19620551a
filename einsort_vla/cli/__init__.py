"""The `einsort-vla` command: one short module per subcommand."""

from einsort_vla.cli.main import main

__all__ = ["main"]
