"""What the bundled LIBERO package holds: suites, tasks, BDDL files, stored initial states."""

import contextlib
import ctypes.util
import functools
import io
import os
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from einsort_vla.errors import MissingDependency, UsageError, importing, unknown_name

_GL_LIBRARY = {"osmesa": ("OSMesa", "libosmesa6"), "egl": ("EGL", "libegl1")}


@dataclass(frozen=True)
class Task:
    """One task of a suite: its sentence and the file that defines scene and goal."""

    suite: str
    task_id: int
    language: str
    bddl_file: str


def prepare_gl() -> None:
    """Choose the software renderer unless the user chose one, before mujoco is imported.

    Raises:
        MissingDependency: the GL library of the chosen renderer is not on this machine.
    """
    backend = os.environ.setdefault("MUJOCO_GL", "osmesa")
    os.environ.setdefault("PYOPENGL_PLATFORM", backend)
    os.environ.setdefault("LP_NUM_THREADS", "1")  # llvmpipe: more threads only fight the simulator
    library, package = _GL_LIBRARY.get(backend, ("GL", "libgl1"))
    if ctypes.util.find_library(library) is None:
        raise MissingDependency(
            f"the OpenGL library lib{library} (MUJOCO_GL={backend}) is not installed. "
            f"On Debian or Ubuntu: apt-get install {package}"
        )


@functools.cache
def _suites() -> dict[str, Any]:
    prepare_gl()
    install = importing("LIBERO cannot be imported", "Install it with: uv sync --extra libero")
    with install, contextlib.redirect_stdout(io.StringIO()):
        from libero.libero import benchmark
    return benchmark.get_benchmark_dict()


def suite_names() -> list[str]:
    """All suites the installed benchmark offers."""
    return sorted(_suites())


@functools.cache
def _suite(name: str) -> Any:
    if name not in _suites():
        raise unknown_name("suite", name, _suites())
    with contextlib.redirect_stdout(io.StringIO()):  # the package announces its task order
        return _suites()[name]()


def n_tasks(suite: str) -> int:
    return _suite(suite).n_tasks


def load_task(suite: str, task_id: int) -> Task:
    """One task by its number.

    Raises:
        UsageError: the suite or the task number does not exist.
    """
    source = _suite(suite)
    if not 0 <= task_id < source.n_tasks:
        raise UsageError(f"{suite} has tasks 0 to {source.n_tasks - 1}; {task_id} was asked for.")
    return Task(
        suite, task_id, source.get_task(task_id).language, source.get_task_bddl_file_path(task_id)
    )


@functools.cache
def scene_definition(task: Task) -> str:
    """The task's BDDL file without its sentence and its goal: what a simulator is built from."""
    text = Path(task.bddl_file).read_text(encoding="utf-8")
    for part in ("(:language", "(:obj_of_interest", "(:goal"):
        start = text.index(part)
        depths = accumulate((c == "(") - (c == ")") for c in text[start:])
        length = next(i for i, depth in enumerate(depths, start=1) if not depth)
        text = text[:start] + text[start + length :]
    return " ".join(text.split())


def load_initial_states(suite: str, task_id: int) -> np.ndarray:
    """The benchmark's stored initial states, (n_states, state_size) float64: the exam."""
    return np.asarray(_suite(suite).get_task_init_states(task_id))
