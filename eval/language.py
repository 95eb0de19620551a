"""A language model, dense and compressed, on one text and the same questions."""

import sys
from pathlib import Path

if not __package__:  # run as a script: see eval/libero.py
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from einsort_vla.cli.run import run_command

if __name__ == "__main__":
    run_command(
        "eval.text.settings:LanguageSettings",
        "eval.text.language_command:main",
        "eval/language.py",
    )
