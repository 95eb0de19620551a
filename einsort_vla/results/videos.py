"""Which videos of a run the page shows: one that both arms solve, and one that tells them apart."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from einsort_vla.reading import is_own_file
from einsort_vla.results.episode import Scene, episode_name, read_episodes
from einsort_vla.results.report import ClosedLoop, Report
from einsort_vla.results.run import LOG, VIDEOS

MAX_BYTES = 6_000_000  # of all videos of a page together, in base64

Kind = Literal["both", "only dense", "only compressed", "neither"]
KINDS: dict[tuple[bool, bool], Kind] = {  # by success of the dense and of the compressed arm
    (True, True): "both",
    (True, False): "only dense",
    (False, True): "only compressed",
    (False, False): "neither",
}


@dataclass(frozen=True)
class Film:
    """One video of a dense arm (left) beside a compressed one (right)."""

    path: Path
    scene: Scene
    language: str
    reference: str
    arm: str
    kind: Kind

    @property
    def n_bytes(self) -> int:
        """In base64."""
        return 4 * -(-self.path.stat().st_size // 3)

    @property
    def data_url(self) -> str:
        return f"data:video/mp4;base64,{base64.b64encode(self.path.read_bytes()).decode()}"


def choose_films(report: Report, folder: Path) -> list[Film]:
    """At most two videos of a run, always the same ones.

    The first that both arms solve, and the first that only the dense one solves, or else only the
    compressed one; first by arm, suite, task and episode. One too large for the page is passed
    over.

    Args:
        report: of a closed-loop run.
        folder: of the run, with episodes.jsonl and, where it was filmed, videos/.
    """
    if not (report.closed_loop and (folder / VIDEOS).is_dir()):
        return []
    films = list(_films(report.closed_loop, folder))
    chosen: list[Film] = []
    left = MAX_BYTES
    for kinds in (("both",), ("only dense", "only compressed")):
        by_kind = (film for kind in kinds for film in films if film.kind == kind)
        film = next((film for film in by_kind if film.n_bytes <= left), None)
        if film:
            chosen.append(film)
            left -= film.n_bytes
    return chosen


def _films(loop: ClosedLoop, folder: Path) -> Iterator[Film]:
    records = read_episodes(folder / LOG)
    solved = {(r.scene, r.arm): r.is_success for r in records if r.outcome != "error"}
    languages = {(task.suite, task.task_id): task.language for task in loop.tasks}
    scenes = sorted({scene for scene, _ in solved}, key=lambda s: (s.suite, s.task_id, s.episode))
    for arm, pair in loop.pairs.items():
        reference = pair.reference
        for scene in scenes:
            path = _find(folder / VIDEOS, scene, arm, is_only_arm=len(loop.pairs) == 1)
            if path and (scene, arm) in solved and (scene, reference) in solved:
                kind = KINDS[solved[scene, reference], solved[scene, arm]]
                language = languages[scene.suite, scene.task_id]
                yield Film(path, scene, language, reference, arm, kind)


def _find(videos: Path, scene: Scene, arm: str, is_only_arm: bool) -> Path | None:
    """The video of a scene; that of the only compressed arm may do without its name.

    A link in another's folder may lead anywhere, and the page is shown to others.
    """
    stem = f"{scene.suite}_task{scene.task_id}_episode{scene.episode}"
    names = [f"{episode_name(scene, arm)}.mp4"] + [f"{stem}.mp4"] * is_only_arm
    paths = (videos / name for name in names)
    return next((path for path in paths if is_own_file(path, videos.parent)), None)
