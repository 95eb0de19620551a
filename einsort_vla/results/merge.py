"""Joining the shards of one evaluation: the same arms over other scenes, or the same ones again."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import to_builtins
from msgspec.structs import replace

from einsort_vla.atomic import check_apart
from einsort_vla.claims import atomic_folder
from einsort_vla.errors import UsageError
from einsort_vla.reading import is_own_file
from einsort_vla.results.closed_loop import make_report
from einsort_vla.results.episode import EpisodeKey, EpisodeRecord, read_episodes, write_episodes
from einsort_vla.results.page import write_pages
from einsort_vla.results.report import Report
from einsort_vla.results.run import LOG, VIDEOS, Design, Run, Task, design_of, read_run, write_run

SAME = ("inputs_sha256", "versions")
SAME_DESIGN = ("environment", "protocol", "scenes", "margin", "sequential")
NOTED = ("machine", "git_commit", "python")  # may differ: all that occur are listed


def merge_runs(folders: Sequence[Path], output: Path) -> Report:
    """Write a new run folder with all episodes and videos of these, and return its report.

    Raises:
        UsageError: there is none, one is named twice, `output` lies in one, they are not of one
            evaluation, or one episode ended differently in two.
        CheckpointError: one is no run folder, or `output` exists.
    """
    _check_places(folders, output)
    joined = join_runs({folder: read_run(folder) for folder in folders})
    records = join_episodes({folder: read_episodes(folder / LOG) for folder in folders})
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(output) as partial:
        write_run(partial, joined)
        write_episodes(partial / LOG, records)
        for folder in folders:
            _copy_videos(folder / VIDEOS, partial / VIDEOS)
        report = make_report(partial)
        write_pages(report, partial)
    return report


def _check_places(folders: Sequence[Path], output: Path) -> None:
    places = [folder.resolve() for folder in folders]
    if not places:
        raise UsageError("there is nothing to merge. Name two run folders or more.")
    for k, (folder, place) in enumerate(zip(folders, places, strict=True)):
        if place in places[:k]:
            raise UsageError(f"{folder} is named twice. Name each run folder once.")
    check_apart(output, *folders)


def _copy_videos(videos: Path, destination: Path) -> None:
    """Files alone: a link in another's folder may lead anywhere."""
    for file in sorted(videos.glob("*.mp4")):
        if is_own_file(file, videos.parent):
            destination.mkdir(exist_ok=True)
            shutil.copyfile(file, destination / file.name)


def join_runs(runs: Mapping[Path, Run]) -> Run:
    """run.json of the whole, from those of its shards by folder.

    Raises:
        UsageError: they are not of one evaluation.
        CheckpointError: one is of no closed-loop run.
    """
    designs = {folder: design_of(run, folder) for folder, run in runs.items()}
    compared = {folder: _compared(run, designs[folder]) for folder, run in runs.items()}
    first, *others = runs
    for folder in others:
        if difference := _first_difference(compared[first], compared[folder]):
            raise UsageError(
                f"{first} and {folder} are not shards of one evaluation: {difference}. "
                "Merge only runs that differ in nothing but tasks and episodes."
            )
    noted: dict[str, Any] = {
        key: ", ".join(dict.fromkeys(v for run in runs.values() if (v := getattr(run, key))))
        for key in NOTED
    }
    design = replace(designs[first], tasks=_join_tasks(designs.values()))
    return replace(runs[first], **noted, design=design)


def _compared(run: Run, design: Design) -> dict[str, Any]:
    """What shards have in common, with arms under their names."""
    content, designed = to_builtins(run), to_builtins(design)
    return {
        **{key: content[key] for key in SAME},
        **{key: designed[key] for key in SAME_DESIGN},
        "arm names": [arm.name for arm in design.arms],
        "arms": {arm["name"]: arm for arm in designed["arms"]},
    }


def _join_tasks(designs: Iterable[Design]) -> tuple[Task, ...]:
    joined: dict[tuple[str, int], Task] = {}
    for task in (task for design in designs for task in design.tasks):
        known = joined.setdefault(task.key, task)
        states = sorted({*known.states, *task.states})
        joined[task.key] = replace(known, states=tuple(states))
    return tuple(joined[key] for key in sorted(joined))


def join_episodes(shards: Mapping[Path, list[EpisodeRecord]]) -> list[EpisodeRecord]:
    """Every episode once; one that ended in an error gives way to one that was finished."""
    joined: dict[EpisodeKey, tuple[Path, EpisodeRecord]] = {}
    for folder, records in shards.items():
        for record in records:
            place, known = joined.setdefault(record.key, (folder, record))
            if known.outcome == "error":
                joined[record.key] = folder, record
            elif record.outcome != "error":
                _check_alike(place, known, folder, record)
    return [record for _, record in joined.values()]


def _check_alike(place: Path, known: EpisodeRecord, folder: Path, record: EpisodeRecord) -> None:
    for what in ("outcome", "actions_sha256"):
        if getattr(known, what) != getattr(record, what):
            scene = record.scene
            raise UsageError(
                f"{scene.suite} task {scene.task_id} episode {scene.episode} of arm {record.arm!r} "
                f"has {what} {getattr(known, what)!r} in {place} and {getattr(record, what)!r} in "
                f"{folder}: the runs do not repeat each other, so leave one of them out."
            )


def _first_difference(first: Any, second: Any, name: str = "") -> str | None:
    """Where two pieces of JSON first differ, in words."""
    if not (isinstance(first, dict) and isinstance(second, dict)):
        return None if first == second else f"{name} is {first!r} in one, {second!r} in the other"
    for key in dict.fromkeys([*first, *second]):
        inner = f"{name}.{key}" if name else key
        if found := _first_difference(first.get(key), second.get(key), inner):
            return found
    return None
