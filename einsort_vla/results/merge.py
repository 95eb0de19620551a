"""Joining the shards of one evaluation: the same arms over other scenes, or the same ones again."""

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from einsort_vla.errors import UsageError
from einsort_vla.results.episode import EpisodeKey, EpisodeRecord, read_episodes, write_episodes
from einsort_vla.results.folder import LOG, RUN, VIDEOS, read_run
from einsort_vla.results.page import write_pages
from einsort_vla.results.report import write_report

SAME = ("inputs_sha256", "protocol", "scenes", "versions", "margin", "sequential")
NOTED = ("machine", "git_commit", "python")  # may differ: all that occur are listed


def merge_runs(folders: Sequence[Path], output: Path) -> dict[str, Any]:
    """Write a new run folder with all episodes and videos of these, and return its report.

    Raises:
        UsageError: they are not of one evaluation, or one episode ended differently in two.
        CheckpointError: one is no run folder.
    """
    runs = {folder: read_run(folder) for folder in folders}
    joined = join_runs(runs)
    records = join_episodes({folder: read_episodes(folder / LOG) for folder in folders})
    output.mkdir(parents=True)
    (output / RUN).write_text(json.dumps(joined, indent=2) + "\n", encoding="utf-8")
    write_episodes(output / LOG, records)
    for folder in folders:
        if (folder / VIDEOS).is_dir():
            shutil.copytree(folder / VIDEOS, output / VIDEOS, dirs_exist_ok=True)
    report = write_report(output)
    write_pages(report, output)
    return report


def join_runs(runs: dict[Path, dict[str, Any]]) -> dict[str, Any]:
    """run.json of the whole, from those of its shards by folder."""
    (first_folder, first), *others = runs.items()
    for folder, run in others:
        if found := _first_difference(_compared(first), _compared(run)):
            raise UsageError(
                f"{first_folder} and {folder} are not shards of one evaluation: {found}. "
                "Merge only runs that differ in nothing but tasks and episodes."
            )
    noted = {
        key: ", ".join(dict.fromkeys(str(run[key]) for run in runs.values() if run.get(key)))
        for key in NOTED
    }
    return {**first, **noted, "tasks": _join_tasks(runs.values())}


def _compared(run: dict[str, Any]) -> dict[str, Any]:
    """What shards have in common, with arms under their names."""
    arms = {arm["name"]: arm for arm in run["arms"]}
    return {**{key: run.get(key) for key in SAME}, "arm names": list(arms), "arms": arms}


def _join_tasks(runs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every task once, with the states of all shards."""
    tasks: dict[tuple[str, int], dict[str, Any]] = {}
    states: dict[tuple[str, int], set[int]] = {}
    for task in (task for run in runs for task in run["tasks"]):
        key = task["suite"], task["task_id"]
        tasks.setdefault(key, task)
        states.setdefault(key, set()).update(task["states"])
    return [{**tasks[key], "states": sorted(states[key])} for key in sorted(tasks)]


def join_episodes(shards: dict[Path, list[EpisodeRecord]]) -> list[EpisodeRecord]:
    """Every episode once; one that ended in an error gives way to one that was finished."""
    joined: dict[EpisodeKey, tuple[Path, EpisodeRecord]] = {}
    for folder, records in shards.items():
        for record in records:
            place, known = joined.get(record.key, (folder, record))
            if known.outcome == "error":
                joined[record.key] = folder, record
            elif record.outcome == "error":
                continue
            else:
                _check_alike(place, known, folder, record)
                joined[record.key] = place, known
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
