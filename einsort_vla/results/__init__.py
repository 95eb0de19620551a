"""Results of an evaluation: from episodes to statistics, verdicts and pages.

Knows no simulator and no torch; the layout of a run folder is in docs/evaluation.md. What needs
scipy, jinja2 or matplotlib is taken from its own module, so that a simulator's process loads none
of them: all but `episode`, `folder`, `log` and `measures`.
"""

from einsort_vla.results.episode import (
    EpisodeKey,
    EpisodeRecord,
    Motion,
    Outcome,
    Scene,
    episode_name,
    read_episodes,
    write_episodes,
)
from einsort_vla.results.folder import CARD, LOG, PAGE, REPORT, RUN, VIDEOS, read_run
from einsort_vla.results.log import appending, read_lines

__all__ = [
    "CARD",
    "LOG",
    "PAGE",
    "REPORT",
    "RUN",
    "VIDEOS",
    "EpisodeKey",
    "EpisodeRecord",
    "Motion",
    "Outcome",
    "Scene",
    "appending",
    "episode_name",
    "read_episodes",
    "read_lines",
    "read_run",
    "write_episodes",
]
