"""Results of an evaluation: from episodes to statistics, verdicts and pages.

Knows no simulator and no torch; the layout of a run folder is in docs/evaluation.md. What needs
scipy, jinja2 or matplotlib is taken from its own module, so that a simulator's process loads none
of them: only what stands here, and `measures`, do without.
"""

from einsort_vla.results.arms import ArmFacts
from einsort_vla.results.episode import (
    EpisodeKey,
    EpisodeRecord,
    Outcome,
    Scene,
    episode_name,
    read_episodes,
    write_episodes,
)
from einsort_vla.results.log import appending, read_lines
from einsort_vla.results.motion import Motion, Steps, motion_of
from einsort_vla.results.run import (
    CARD,
    CLOSED_LOOP,
    LOG,
    PAGE,
    REPORT,
    RUN,
    VIDEOS,
    Design,
    Run,
    Scenes,
    Task,
    read_run,
    write_run,
)

__all__ = [
    "CARD",
    "CLOSED_LOOP",
    "LOG",
    "PAGE",
    "REPORT",
    "RUN",
    "VIDEOS",
    "ArmFacts",
    "Design",
    "EpisodeKey",
    "EpisodeRecord",
    "Motion",
    "Outcome",
    "Run",
    "Scene",
    "Scenes",
    "Steps",
    "Task",
    "appending",
    "episode_name",
    "motion_of",
    "read_episodes",
    "read_lines",
    "read_run",
    "write_episodes",
    "write_run",
]
