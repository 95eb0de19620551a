"""The command line of `einsort-device.pyz`, by the standard library: no other may be there."""

import argparse
from pathlib import Path

from einsort_vla.ending import end


def main() -> None:
    """Parse, run, exit; docs/usage.md has the exit codes."""
    end(_run)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="einsort-device", description="Build, verify and time an exported policy.",
        epilog="A bundle's plugin, its engines and this program are code of whoever made it.",
    )  # fmt: skip
    actions = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("build", "build TensorRT engines for this device; this runs the bundle's plugin"),
        ("verify", "compare actions with those stored at export"),
        ("bench", "time each part and whole chunks"),
        ("audit", "list every coded layer with what runs it"),
    ):
        command = actions.add_parser(name, help=text, description=text)
        command.add_argument("bundle", type=Path, help="the exported folder")
        command.add_argument(
            "--trust-key", type=Path, action="append", default=[], metavar="PEM",
            help="a public key; the bundle must be signed with one of those given",
        )  # fmt: skip
        if name in ("verify", "bench"):
            command.add_argument(
                "--runtime", choices=("auto", "tensorrt", "onnx"), default="auto",
                help="auto: TensorRT if engines were built here, else ONNX Runtime",
            )  # fmt: skip
        if name == "bench":
            command.add_argument("--n", type=int, default=100, help="chunks to time")
    return parser


def _run() -> int:
    given = _parser().parse_args()
    from einsort_vla.runtime import commands

    if given.command == "build":
        return commands.build(given.bundle, given.trust_key, print)
    if given.command == "verify":
        return commands.verify(given.bundle, given.runtime, given.trust_key, print)
    if given.command == "bench":
        return commands.bench(given.bundle, given.runtime, given.n, given.trust_key, print)
    return commands.audit(given.bundle, given.trust_key, print)
