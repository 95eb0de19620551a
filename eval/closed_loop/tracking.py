"""Running success rates in an experiment tracker."""

import importlib
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from einsort_vla.errors import MissingDependency
from einsort_vla.results.run import read_run

PROJECT = "einsort-vla"


class Tracker(Protocol):
    """What wandb and trackio have in common."""

    def log(self, metrics: dict[str, Any]) -> None: ...

    def finish(self) -> None: ...


def open_tracker(name: str | None, output: Path) -> Tracker | None:
    """Begin a run there, with this run's settings; None where none is asked for.

    Raises:
        MissingDependency: it is not installed.
    """
    if name is None:
        return None
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise MissingDependency(
            f"--track {name} needs {name}: pip install 'einsort-vla[{name}]'"
        ) from error
    return module.init(project=PROJECT, name=output.name, config=asdict(read_run(output)))
