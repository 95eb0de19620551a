"""The command line of `einsort-device.pyz`, by the standard library: no other may be there."""

import argparse
import sys
from pathlib import Path

from einsort_vla.errors import EinSortError
from einsort_vla.runtime import commands

INCOMPLETE, MISUSE = 1, 2


def main() -> None:
    """Parse, run, exit: 0 done, 1 a gate failed, 2 misuse."""
    parser = argparse.ArgumentParser(
        prog="einsort-device", description="Build, verify and time an exported policy."
    )
    actions = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("build", "build TensorRT engines for this device"),
        ("verify", "compare actions with those stored at export"),
        ("bench", "time each part and whole chunks"),
        ("audit", "list every coded layer with what runs it"),
    ):
        command = actions.add_parser(name, help=text)
        command.add_argument("bundle", type=Path, help="the exported folder")
        if name in ("verify", "bench"):
            command.add_argument("--runtime", choices=commands.RUNTIMES, default="auto")
        if name == "bench":
            command.add_argument("--n", type=int, default=100, help="chunks to time")
    given = parser.parse_args()
    try:
        sys.exit(_run(given))
    except (EinSortError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(MISUSE)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        sys.exit(INCOMPLETE)


def _run(given: argparse.Namespace) -> int:
    if given.command == "build":
        return commands.build(given.bundle, print)
    if given.command == "verify":
        return commands.verify(given.bundle, given.runtime, print)
    if given.command == "bench":
        return commands.bench(given.bundle, given.runtime, given.n, print)
    return commands.audit(given.bundle, print)
