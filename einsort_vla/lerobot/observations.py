"""What a policy saw: kept in files, read from LeRobot datasets, or made up."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from einsort_vla.atomic import atomic_file, writing
from einsort_vla.errors import CheckpointError, importing, reason_of
from einsort_vla.runtime.observation import TASK_KEY, Observation, is_picture
from einsort_vla.tensors import is_finite, open_tensors

MADE_UP_TASK = "pick up the object and place it in the basket"
MAX_TASK = 4096  # characters
_DATASET_INFO = Path("meta") / "info.json"


def save_observations(path: Path, observations: Sequence[Observation]) -> None:
    """Write the observations of one episode, atomically."""
    arrays = {
        key: np.stack([observation[key] for observation in observations])
        for key in observations[0]
        if key != TASK_KEY
    }
    with writing(path), atomic_file(path) as partial:
        save_file(arrays, partial, metadata={TASK_KEY: observations[0][TASK_KEY]})


def load_observations(paths: Sequence[Path]) -> list[Observation]:
    """The observations of all files that `save_observations` wrote, one after the other.

    Raises:
        CheckpointError: a file is damaged or holds no observations.
    """
    return [seen for path in paths for seen in _load(path)]


def _load(path: Path) -> list[Observation]:
    file = open_tensors(path)
    task = file.metadata.get(TASK_KEY)
    if task is None or not file.tensors:
        raise CheckpointError(f"{path} holds no observations; eval/calibrate.py writes such.")
    if len(task) > MAX_TASK:
        raise CheckpointError(f"{path}: its task has more than {MAX_TASK} characters.")
    for name, stored in file.tensors.items():
        if not name.startswith("observation."):
            raise CheckpointError(f"{path} holds {name!r}, which is no observation.")
        types, n_axes = (("U8",), 4) if is_picture(name) else (("U8", "F32", "F64"), None)
        if stored.dtype not in types or len(stored.shape) != (n_axes or max(1, len(stored.shape))):
            raise CheckpointError(
                f"{path} is damaged: {name} is {stored.dtype} of shape {stored.shape}."
            )
    counts = {stored.shape[0] for stored in file.tensors.values()}
    if len(counts) != 1 or 0 in counts:
        raise CheckpointError(f"{path} is damaged: its tensors hold {sorted(counts)} observations.")
    arrays = {}
    for name, tensor in file.read_all().items():
        if not is_finite(tensor):
            raise CheckpointError(f"{path} is damaged: {name} holds NaN or infinity.")
        arrays[name] = tensor.numpy()
    return [
        {**{key: a[k] for key, a in arrays.items()}, TASK_KEY: task} for k in range(min(counts))
    ]


def read_frames(source: str, limit: int) -> list[Observation]:
    """At most `limit` observations, spread evenly over all there are.

    Args:
        source: a file of observations, a folder of them, or a LeRobot dataset's folder or hub id.
        limit: how many are enough.

    Raises:
        CheckpointError: there are no observations in it, or it cannot be reached.
        MissingDependency: it is a dataset, and LeRobot's `dataset` extra is not installed.
    """
    path = Path(source)
    if path.is_file():
        return spread(load_observations([path]), limit)
    if path.is_dir() and not (path / _DATASET_INFO).is_file():
        files = sorted(path.glob("*.safetensors"))
        if not files:
            raise CheckpointError(
                f"{path} holds no observations: neither *.safetensors files nor a LeRobot dataset."
            )
        return spread(load_observations(files), limit)
    if not path.is_dir() and source.count("/") != 1:
        raise CheckpointError(f"the observations {source} do not exist.")
    return _read_dataset(source, limit)


def spread(items: Sequence[Any], n: int) -> list[Any]:
    """`n` of the items, evenly over all of them."""
    n = min(n, len(items))
    return [items[(2 * k + 1) * len(items) // (2 * n)] for k in range(n)]


def made_up_observations(
    features: Mapping[str, Any], statistics: Mapping[str, Mapping[str, Any]], n: int
) -> list[Observation]:
    """Observations of noise, the same at each call: for comparing policies without real ones.

    Args:
        features: what has LeRobot's `type` and `shape`, by key.
        statistics: mean and deviation by key; states are drawn from them where they are given.
        n: how many.
    """
    rng = np.random.default_rng(0)
    return [
        {key: _made_up(feature, statistics.get(key, {}), rng) for key, feature in features.items()}
        | {TASK_KEY: MADE_UP_TASK}
        for _ in range(n)
    ]


def _made_up(feature: Any, own: Mapping[str, Any], rng: np.random.Generator) -> np.ndarray:
    shape = tuple(feature.shape)
    if feature.type == "VISUAL":
        return rng.integers(0, 256, (*shape[1:], shape[0]), dtype=np.uint8)
    mean, deviation = (np.asarray(own.get(k, v)) for k, v in (("mean", 0.0), ("std", 1.0)))
    return (mean + deviation * rng.standard_normal(shape)).astype(np.float32)


def _read_dataset(source: str, limit: int) -> list[Observation]:
    with importing("LeRobot's datasets cannot be read", "Install: pip install 'lerobot[dataset]'"):
        from lerobot.datasets.lerobot_dataset import LeRobotDataset
    is_local = Path(source).is_dir()
    try:
        dataset = LeRobotDataset(
            Path(source).name if is_local else source,
            root=source if is_local else None,
            return_uint8=True,
        )
        frames: list[Any] = [dataset[k] for k in spread(range(len(dataset)), limit)]
    except Exception as error:  # whatever a hub, a decoder or a damaged file raises
        raise CheckpointError(
            f"{source} is no LeRobot dataset that can be read: {reason_of(error)}"
        ) from error
    return [_from_frame(frame) for frame in frames]


def _from_frame(frame: Mapping[str, Any]) -> Observation:
    found: Observation = {TASK_KEY: frame[TASK_KEY]}
    for key, value in frame.items():
        if is_picture(key):
            if value.is_floating_point():  # of pictures that are no videos, 0 to 1 all the same
                value = (value * 255).round().byte()
            found[key] = value.permute(1, 2, 0).contiguous().numpy()
        elif key.startswith("observation."):
            found[key] = value.numpy()
    return found
