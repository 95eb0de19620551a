"""The files of a run folder."""

import json
from pathlib import Path
from typing import Any

from einsort_vla.errors import CheckpointError

RUN, LOG, VIDEOS = "run.json", "episodes.jsonl", "videos"  # what a run writes
REPORT, PAGE, CARD = "report.json", "report.html", "report.md"  # what is made of it


def read_run(folder: Path) -> dict[str, Any]:
    """run.json of a run folder.

    Raises:
        CheckpointError: there is none, or it is no JSON.
    """
    path = folder / RUN
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder} has no {RUN}, so it is no run folder; name one that the evaluation wrote."
        ) from None
    except ValueError as error:
        raise CheckpointError(f"{path} is no JSON: {error}; run the evaluation again.") from error
