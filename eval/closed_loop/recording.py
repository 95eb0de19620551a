"""Episodes as rerun recordings: what the policy saw, and what it answered."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from einsort_vla.errors import importing
from einsort_vla.runtime.observation import Observation

APPLICATION = "einsort-vla"
LOOK = "look"  # the timeline


class Recording:
    """One episode, written to an .rrd file as it runs; `rerun FILE` shows it.

    Raises:
        MissingDependency: rerun is not installed.
    """

    def __init__(self, path: Path) -> None:
        rerun = import_rerun()
        self._image, self._numbers = rerun.Image, rerun.Scalars
        self._stream = rerun.RecordingStream(APPLICATION, recording_id=path.stem)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream.save(path)
        self._n_looks = 0

    def look(self, observation: Observation, chunk: np.ndarray) -> None:
        """What was seen, and the chunk, (chunk_size, action_dim), it was answered with."""
        self._stream.set_time(LOOK, sequence=self._n_looks)
        for key, value in observation.items():
            if isinstance(value, np.ndarray):
                is_picture = value.ndim == 3
                self._stream.log(key, self._image(value) if is_picture else self._numbers(value))
        self._stream.log("action", self._numbers(chunk[0]))
        self._n_looks += 1

    def close(self) -> None:
        self._stream.flush()
        self._stream.disconnect()


def import_rerun() -> Any:
    """The rerun library.

    Raises:
        MissingDependency: it is not installed.
    """
    with importing("--record needs rerun", "pip install 'einsort-vla[rerun]'"):
        import rerun
    return rerun


def import_tracker(name: str) -> Any:
    """The library of an experiment tracker.

    Raises:
        MissingDependency: it is not installed.
    """
    with importing(f"--track {name} needs {name}", f"pip install 'einsort-vla[{name}]'"):
        return importlib.import_module(name)
