"""What each linear layer's inputs look like in use: X^T X, streamed, and kept in a file."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial as bound
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta
from safetensors.torch import save_file
from torch import Tensor, nn

from einsort_vla.atomic import atomic_file, writing
from einsort_vla.errors import CheckpointError
from einsort_vla.reading import as_record, parse_json
from einsort_vla.tensors import StoredTensor, is_finite, open_tensors

FORMAT_FAMILY = "einsort-statistics-"
FORMAT = FORMAT_FAMILY + "2"


class _Metadata(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: str
    source_sha256: Annotated[str, Meta(max_length=64)]
    content: str


class _Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    n_rows: dict[str, Annotated[int, Meta(ge=1, le=2**53)]]
    sensitivities: dict[str, Annotated[float, Meta(ge=0)]]


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

    def saw(self, name: str) -> bool:
        """Whether a layer had inputs, and not zeros alone; without, no error can be fed back."""
        return name in self.n_rows and bool(self.second_moments[name].diagonal().any())

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
        with writing(path), atomic_file(path) as partial:
            save_file(self.second_moments, partial, metadata=metadata)

    @classmethod
    def load(cls, path: Path) -> "InputStatistics":
        """The content of a file that `save` wrote.

        Raises:
            CheckpointError: it is missing, damaged, or holds something else.
        """
        file = open_tensors(path)
        if file.metadata.get("format") != FORMAT:
            raise CheckpointError(f"{path} is not a calibration file that we wrote.")
        about = as_record(dict(file.metadata), _Metadata, f"{path}: its metadata")
        content = parse_json(about.content, _Content, f"{path}: content in its metadata")
        if other := content.n_rows.keys() ^ file.tensors.keys():
            raise CheckpointError(f"{path} is damaged: {min(other)[:99]} has no sum or no n_rows.")
        statistics = cls(about.source_sha256)
        statistics.second_moments = {n: _moment(t, n) for n, t in file.tensors.items()}
        statistics.n_rows, statistics.sensitivities = content.n_rows, content.sensitivities
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
        return open_tensors(path).metadata.get("format", "").startswith(FORMAT_FAMILY)
    except CheckpointError:
        return False


def _moment(stored: StoredTensor, name: str) -> Tensor:
    """(in_features, in_features) float32 of a file that anyone may have written."""
    shape = stored.shape
    if stored.dtype != "F32" or len(shape) != 2 or shape[0] != shape[1] or not shape[0]:
        raise CheckpointError(
            f"{stored.file} is damaged: {name} is {stored.dtype} of shape {shape}, not a square "
            "matrix of float32."
        )
    moment = stored.read()
    if not is_finite(moment):
        raise CheckpointError(f"{stored.file} is damaged: {name} holds NaN or infinity.")
    return moment
