"""TextVQA: a model, dense and compressed, is asked about text in pictures."""

import sys
from pathlib import Path

if not __package__:  # run as a script: see eval/libero.py
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from rich.console import Console

from einsort_vla.cli.run import run_command
from eval.text.settings import TextVqaSettings


def main(settings: TextVqaSettings, console: Console) -> int:
    """See `eval.text.vqa_command`."""
    from eval.text import vqa_command  # after --help, which loads nothing heavy

    return vqa_command.main(settings, console)


if __name__ == "__main__":
    run_command(TextVqaSettings, main, "eval/textvqa.py")
