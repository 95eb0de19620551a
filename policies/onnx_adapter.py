"""An exported policy behind the project's policy protocol, run by ONNX Runtime."""

import gc
from collections.abc import Callable
from pathlib import Path

import torch

from einsort_vla.checkpoint import WEIGHTS, file_sha256
from einsort_vla.errors import CheckpointError
from einsort_vla.lerobot import Shown, load_policy, replace_sampling_
from einsort_vla.runtime import OnnxSession, open_bundle
from einsort_vla.runtime.manifest import CHUNK
from einsort_vla.runtime.measure import resident_bytes
from policies.lerobot_adapter import LeRobotPolicy


def load_onnx(folder: str, bundle: Path) -> LeRobotPolicy:
    """The processors of a policy folder around the `chunk` graph that was exported of it.

    Raises:
        CheckpointError: one of the two is missing, damaged or incomplete.
        MissingDependency: onnxruntime is not installed.
    """
    opened = open_bundle(bundle)
    if opened.manifest.source.weights_sha256 != file_sha256(Path(folder) / WEIGHTS):
        raise CheckpointError(f"{bundle} was exported of another policy than {folder}.")
    loaded = load_policy(folder, backend="reference")  # it multiplies nothing
    session = OnnxSession(opened, torch.get_num_threads())

    def sample(shown: Shown) -> torch.Tensor:
        found = session.run(CHUNK, {name: tensor.numpy() for name, tensor in shown.items()})
        return torch.from_numpy(found["actions"])

    replace_sampling_(loaded, sample)
    policy = LeRobotPolicy(loaded)
    coded = {layer.name for part in opened.parts.values() for layer in part.layers}
    policy.layers = {"onnx": len(coded)}
    policy.memory_bytes = _held_by(lambda: loaded.chunk(loaded.made_up_observations(1)[0], 0))
    return policy


def _held_by(first_chunk: Callable[[], object]) -> int | None:
    """Bytes that the first chunk, at which graphs are opened, leaves in memory."""
    gc.collect()
    before = resident_bytes()
    first_chunk()
    gc.collect()
    after = resident_bytes()
    return None if before is None or after is None else max(after - before, 0)
