"""TextVQA: a model, dense and compressed, is asked about text in pictures."""

import sys
from pathlib import Path

if not __package__:  # run as a script: see eval/libero.py
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from einsort_vla.cli.run import run_command

if __name__ == "__main__":
    run_command(
        "eval.text.settings:TextVqaSettings",
        "eval.text.vqa_command:main",
        "eval/textvqa.py",
    )
