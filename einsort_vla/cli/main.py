"""Dispatch of `einsort-vla`."""

from einsort_vla.ending import end
from einsort_vla.errors import MissingDependency


def main() -> None:
    """Entry point of the console script."""
    end(_run)


def _run() -> int:
    try:
        import rich  # noqa: F401
        import tyro  # noqa: F401
    except ImportError as error:
        raise MissingDependency(
            f"{error}. Install the command line with: pip install 'einsort-vla[cli]'"
        ) from error
    from einsort_vla.cli.commands import run

    return run()
