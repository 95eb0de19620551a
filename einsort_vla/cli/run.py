"""What every command shares: parsing, one-line errors, exit codes."""

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

import tyro

from einsort_vla.cli.console import PlainConsole
from einsort_vla.errors import EinSortError, MissingDependency

INCOMPLETE, MISUSE = 1, 2  # a stated gate failed or work is left; a request that cannot be met
PIPE_WIDTH = 160  # columns of tables that go to a file or pipe


def run_command(settings: Any, main: str | Callable[[Any, Any], int], name: str) -> None:
    """Parse the command line into `settings`, run `main(settings, console)`, exit.

    As a text, `module:function`, it is imported after parsing: `--help` needs none of its imports.
    Exit code 0: done; 1: a stated gate failed or the run is incomplete; 2: misuse. An error a user
    can repair is printed as one message without a traceback.
    """
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    try:
        parsed = tyro.cli(settings, prog=name)
        run: Any = main
        if isinstance(main, str):
            module, _, function = main.partition(":")
            run = getattr(importlib.import_module(module), function)
        sys.exit(run(parsed, PlainConsole(width=width)))
    except EinSortError as error:
        kind = "Missing" if isinstance(error, MissingDependency) else "Error"
        print(f"{kind}: {error}", file=sys.stderr)
        sys.exit(MISUSE)
    except BrokenPipeError:  # `| head` has read enough; nothing is left to be flushed to it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(INCOMPLETE)
    except OSError as error:  # a full or read-only disk: the system's message names the file
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(MISUSE)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        sys.exit(INCOMPLETE)
