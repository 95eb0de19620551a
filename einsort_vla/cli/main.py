"""Dispatch of `einsort-vla`."""

import signal


def main() -> None:
    """Entry point of the console script."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # Ctrl-C ends at once and in silence, until `end` acts
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        from einsort_vla.ending import end

        end(_run)
    finally:
        signal.signal(signal.SIGINT, before)


def _run() -> int:
    from einsort_vla.errors import MissingDependency

    try:
        import rich  # noqa: F401
        import tyro  # noqa: F401
    except ImportError as error:
        raise MissingDependency(
            f"{error}. Install the command line with: pip install 'einsort-vla[cli]'"
        ) from error
    from einsort_vla.cli.commands import run

    return run()
