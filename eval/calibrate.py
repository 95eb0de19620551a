"""Watches a policy act, for `--calibrate`: its layers' inputs, and which layers its actions need.

The dense policy runs in closed loop in fresh random scenes with displaced objects, its failures
and recoveries included; the stored initial states, which are the exam, are never used. What it
sees is kept; then its layers' inputs are summed over that, and each layer is coded alone.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: see eval/libero.py
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from einsort_vla.cli.run import run_command

if __name__ == "__main__":
    run_command(
        "eval.closed_loop.settings:CalibrationSettings",
        "eval.closed_loop.calibration:calibrate",
        "eval/calibrate.py",
    )
