"""What every command shares: parsing, a console, and how it ends.

Little is imported with this module, so that Ctrl-C while the rest is loaded ends as any other.
"""

import importlib
import sys
from collections.abc import Callable
from typing import Any

from einsort_vla.ending import INCOMPLETE, end

__all__ = ["INCOMPLETE", "parse_and_run", "run_command"]

PIPE_WIDTH = 160  # columns of tables that go to a file or pipe


def run_command(settings: Any, main: str | Callable[[Any, Any], int], name: str) -> None:
    """Parse the command line into `settings`, run `main(settings, console)`, exit.

    Either may be a text, `module:name`: `settings` is then imported where Ctrl-C and faults are
    met, `main` after parsing, so that `--help` needs none of its imports. docs/usage.md has the
    exit codes.
    """
    end(lambda: parse_and_run(named(settings), main, name))


def parse_and_run(settings: Any, main: str | Callable[[Any, Any], int], name: str) -> int:
    """As `run_command`, where `end` is around it already; returns the exit code."""
    import tyro

    from einsort_vla.cli.console import PlainConsole

    width = None if sys.stdout.isatty() else PIPE_WIDTH
    parsed = tyro.cli(settings, prog=name)
    return named(main)(parsed, PlainConsole(width=width))


def named(value: Any) -> Any:
    """What a text, `module:name`, stands for; anything else is itself."""
    if not isinstance(value, str):
        return value
    module, _, name = value.partition(":")
    return getattr(importlib.import_module(module), name)
