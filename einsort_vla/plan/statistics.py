"""What each linear layer's inputs look like in use: X^T X, streamed, and kept in a file."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial as bound
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from einsort_vla.atomic import atomic_file
from einsort_vla.errors import CheckpointError

FORMAT_FAMILY = "einsort-statistics-"
FORMAT = FORMAT_FAMILY + "2"


class InputStatistics:
    """Sums of x x^T over all inputs x that linear layers have seen.

    Attributes:
        second_moments: weight name to (in_features, in_features) float32, the sum over rows.
        n_rows: weight name to the number of inputs summed.
        sensitivities: weight name to the error of the policy's actions per unit of the weight's
            relative squared error; empty if not measured.
    """

    def __init__(self, source_sha256: str) -> None:
        self.source_sha256 = source_sha256
        self.second_moments: dict[str, Tensor] = {}
        self.n_rows: dict[str, int] = {}
        self.sensitivities: dict[str, float] = {}

    @contextmanager
    def observing(self, layers: Mapping[str, nn.Module]) -> Iterator[None]:
        """While this is open, every forward pass of these layers is added.

        Args:
            layers: by the names of their weights in the checkpoint; each must be called as a
                module.
        """
        handles = [
            layer.register_forward_pre_hook(bound(self._hook, name))
            for name, layer in layers.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, name: str, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.add(name, inputs[0])

    def add(self, name: str, inputs: Tensor) -> None:
        """Add (..., in_features) inputs of one layer."""
        rows = inputs.detach().reshape(-1, inputs.shape[-1]).float()
        moment = (rows.t() @ rows).cpu()
        if name in self.second_moments:
            self.second_moments[name] += moment
            self.n_rows[name] += len(rows)
        else:
            self.second_moments[name], self.n_rows[name] = moment, len(rows)

    def hessian(self, name: str) -> Tensor:
        """(in_features, in_features): the mean of x x^T of one layer.

        Raises:
            CheckpointError: that layer was not observed.
        """
        if name not in self.second_moments:
            raise CheckpointError(
                f"the calibration holds no inputs of {name}: it was made for another policy, "
                "or that layer never ran."
            )
        return self.second_moments[name] / self.n_rows[name]

    def sha256(self) -> str:
        """Fingerprint of all that is in it."""
        digest = hashlib.sha256(json.dumps([self.n_rows, self.sensitivities]).encode())
        for name, moment in sorted(self.second_moments.items()):
            digest.update(name.encode())
            digest.update(moment.contiguous().numpy())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Write atomically; an earlier state of the file is replaced."""
        content = {"n_rows": self.n_rows, "sensitivities": self.sensitivities}
        metadata = {
            "format": FORMAT,
            "source_sha256": self.source_sha256,
            "content": json.dumps(content),
        }
        with atomic_file(path) as partial:
            save_file(self.second_moments, partial, metadata=metadata)

    @classmethod
    def load(cls, path: Path) -> "InputStatistics":
        """The content of a file that `save` wrote.

        Raises:
            CheckpointError: it is missing, damaged, or holds something else.
        """
        if not path.is_file():
            raise CheckpointError(f"the calibration file {path} does not exist.")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                moments = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise CheckpointError(f"{path} is damaged or truncated: {error}") from error
        if metadata.get("format") != FORMAT:
            raise CheckpointError(f"{path} is not a calibration file that we wrote.")
        statistics = cls(metadata["source_sha256"])
        content = json.loads(metadata["content"])
        statistics.second_moments = moments
        statistics.n_rows = content["n_rows"]
        statistics.sensitivities = content["sensitivities"]
        return statistics

    def check_source(self, source_sha256: str) -> None:
        """Refuse statistics of other weights.

        Raises:
            CheckpointError: the policy is not the one that was observed.
        """
        if source_sha256 != self.source_sha256:
            raise CheckpointError(
                "the calibration was made with other weights than this policy's "
                f"(SHA-256 {self.source_sha256[:12]}, not {source_sha256[:12]}); calibrate again."
            )


def is_statistics(path: Path) -> bool:
    """Whether `InputStatistics.save` wrote that file."""
    try:
        with safe_open(path, framework="pt") as file:
            return str((file.metadata() or {}).get("format", "")).startswith(FORMAT_FAMILY)
    except (SafetensorError, OSError):
        return False
