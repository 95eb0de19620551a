"""A language model, dense and compressed, on one text and the same questions."""

import sys
from pathlib import Path

if not __package__:  # run as a script: see eval/libero.py
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from rich.console import Console

from einsort_vla.cli.run import run_command
from eval.text.settings import LanguageSettings


def main(settings: LanguageSettings, console: Console) -> int:
    """See `eval.text.language_command`."""
    from eval.text import language_command  # after --help, which loads nothing heavy

    return language_command.main(settings, console)


if __name__ == "__main__":
    run_command(LanguageSettings, main, "eval/language.py")
