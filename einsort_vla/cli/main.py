"""Dispatch of `einsort-vla`."""

import sys


def main() -> None:
    """Entry point of the console script."""
    try:
        import rich  # noqa: F401
        import tyro  # noqa: F401
    except ImportError as error:
        sys.exit(f"{error}. Install the command line with: pip install 'einsort-vla[cli]'")
    from einsort_vla.cli.commands import run

    run()
