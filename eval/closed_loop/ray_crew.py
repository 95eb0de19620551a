"""Workers on a Ray cluster: one actor a simulator, with the policies in its own process.

The same episodes as `LocalCrew` runs, by the same code. The project and the policies travel through
Ray, so machines need no common disk; each needs the same packages installed.
"""

import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from einsort_vla.errors import MissingDependency, UsageError
from einsort_vla.results.episode import EpisodeRecord
from eval.closed_loop.answers import Answerer, OwnPolicy
from eval.closed_loop.crew import Crew, Ended
from eval.closed_loop.schedule import Job
from eval.closed_loop.worker import Station, Worker
from eval.run.arms import Arm, Variant
from eval.run.provenance import ROOT

try:
    import ray
    from ray.exceptions import RayError
except ImportError as error:
    raise MissingDependency(
        "--ray needs Ray on every machine: pip install 'einsort-vla[ray]'"
    ) from error

Folder = dict[str, bytes]  # relative path to content
NOT_SENT = ("/outputs/", "/.git/", "/.venv/", "/.tools/", "/policies/checkpoints/", "/docs/")
CONNECT_S = 5.0


@contextmanager
def ray_crew(address: str, n_workers: int, station: Station, batch: int) -> Iterator["RayCrew"]:
    """Actors that end when it is left.

    Args:
        address: of the cluster, or `auto` for one that this machine belongs to.
        n_workers: simulators at once, on all machines.
        station: what every worker is told.
        batch: looks that a policy answers in one pass.

    Raises:
        UsageError: there is no cluster, or it has too few cores.
    """
    environment = {
        "working_dir": str(ROOT),
        "excludes": list(NOT_SENT),
        "env_vars": {"OMP_NUM_THREADS": "1"},
    }
    _check_answers(address)
    try:
        ray.init(address=address, runtime_env=environment, log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UsageError(f"--ray {address}: no Ray cluster answers there ({error}).") from error
    try:
        cores = ray.cluster_resources().get("CPU", 0)
        if n_workers > cores:
            raise UsageError(f"--workers {n_workers}: the Ray cluster has {cores:g} cores.")
        yield RayCrew(n_workers, station, batch)
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Refuse an address where nobody listens; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # `auto`
    try:
        socket.create_connection((host, int(port)), CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"--ray {address}: no Ray cluster answers there ({error}).") from error


class RayCrew(Crew):
    """A `Crew` of Ray actors; each is started with its first episode."""

    def __init__(self, n_workers: int, station: Station, batch: int) -> None:
        super().__init__(n_workers)
        self._station, self._batch = station, batch
        self._folders: dict[str, Any] = {}  # path to its content in the object store
        self._actors: dict[int, Any] = {}
        self._promises: dict[Any, int] = {}  # the result that Ray promises, to its worker

    def _start(self, worker: int, job: Job) -> None:
        if worker not in self._actors:
            self._actors[worker] = SimulatorActor.remote(self._station, self._batch)
        variants = {arm.variant for arm in (job.arm, *job.probed)}
        folders = {variant.path: self._stored(variant) for variant in variants}
        self._promises[self._actors[worker].run.remote(job, folders)] = worker

    def _wait(self) -> list[Ended]:
        (done, *_), _ = ray.wait(list(self._promises), num_returns=1)
        worker = self._promises.pop(done)
        job = self._jobs.pop(worker)
        try:
            return [Ended(job, ray.get(done))]
        except RayError as error:  # a dead worker, a lost object, a full disk: a new one may do
            ray.kill(self._actors[worker])
            del self._actors[worker], self._tasks[worker]
            return [Ended(job, None, f"its worker died twice ({error})")]

    def _stored(self, variant: Variant) -> list[Any]:
        """A list, since Ray would send the content itself in place of a bare reference."""
        if variant.path not in self._folders:
            self._folders[variant.path] = ray.put(_read_folder(Path(variant.path)))
        return [self._folders[variant.path]]


@ray.remote(num_cpus=1)
class SimulatorActor:
    """One simulator, with policies of its own node."""

    def __init__(self, station: Station, batch: int) -> None:
        self._root = tempfile.TemporaryDirectory(prefix="einsort-")
        self._places: dict[str, Path] = {}  # where folders of the driver's machine are here
        answerer = Answerer(batch)
        self._worker = Worker(station, lambda variant: OwnPolicy(answerer, variant))

    def run(self, job: Job, folders: dict[str, list[Any]]) -> EpisodeRecord:
        """An episode, as `Worker.run`; `folders` hold what its policies are loaded from."""
        for path, (promise,) in folders.items():
            if path not in self._places:
                place = Path(self._root.name) / str(len(self._places))
                _write_folder(place, ray.get(promise))
                self._places[path] = place
        probed = tuple(self._here(arm) for arm in job.probed)
        return self._worker.run(replace(job, arm=self._here(job.arm), probed=probed))

    def _here(self, arm: Arm) -> Arm:
        path = str(self._places[arm.variant.path])
        return replace(arm, variant=replace(arm.variant, path=path))


def _read_folder(folder: Path) -> Folder:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def _write_folder(folder: Path, files: Folder) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
