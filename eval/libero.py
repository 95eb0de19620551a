"""Closed-loop evaluation: a policy, dense and compressed, on the same scenes."""

import sys
from pathlib import Path

if not __package__:  # run as a script: the root, not eval/, else `import libero` finds this file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from einsort_vla.cli.run import run_command

if __name__ == "__main__":
    run_command(
        "eval.closed_loop.settings:ClosedLoopSettings",
        "eval.closed_loop.command:evaluate",
        "eval/libero.py",
    )
