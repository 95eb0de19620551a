"""What each linear layer sees in use, and what its outputs mean: streamed, and kept in a file."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial as bound
from pathlib import Path
from typing import Annotated

import msgspec
import torch
from msgspec import Meta
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from einsort_vla.atomic import atomic_file, writing
from einsort_vla.codec import Hessian
from einsort_vla.errors import CheckpointError
from einsort_vla.reading import as_record, parse_json
from einsort_vla.tensors import StoredTensor, is_finite, open_tensors

FORMAT_FAMILY = "einsort-statistics-"
FORMAT = FORMAT_FAMILY + "3"
OUTPUTS = ":outputs"  # after the name of a weight
WIDEST_OUTPUT = 4096  # whose moments are kept; they grow with the square


class _Metadata(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: str
    source_sha256: Annotated[str, Meta(max_length=64)]
    content: str


class _Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    n_rows: dict[str, Annotated[int, Meta(ge=1, le=2**53)]]
    sensitivities: dict[str, Annotated[float, Meta(ge=0)]]


class LayerStatistics:
    """Sums over all that linear layers have seen.

    Attributes:
        second_moments: weight name to (in_features, in_features) float32, the sum of x x^T over
            inputs x; each counts by the mean square of the gradients at its outputs, if those
            were seen.
        output_moments: weight name to (out_features, out_features) float32, the sum of g g^T over
            gradients g; of layers of at most `WIDEST_OUTPUT` outputs that had gradients.
        n_rows: weight name to the number of inputs summed.
        sensitivities: weight name to the error of the policy's actions per unit of the weight's
            relative squared error; empty if not measured.
    """

    def __init__(self, source_sha256: str) -> None:
        self.source_sha256 = source_sha256
        self.second_moments: dict[str, Tensor] = {}
        self.output_moments: dict[str, Tensor] = {}
        self.n_rows: dict[str, int] = {}
        self.sensitivities: dict[str, float] = {}

    @contextmanager
    def observing(self, layers: Mapping[str, nn.Module]) -> Iterator[None]:
        """While this is open, the inputs of every forward pass of these layers are added.

        Args:
            layers: by the names of their weights in the checkpoint; each must be called as a
                module.
        """

        def hook(name: str, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self.add(name, inputs[0])

        handles = [
            layer.register_forward_pre_hook(bound(hook, name)) for name, layer in layers.items()
        ]
        with _hooked(handles):
            yield

    @contextmanager
    def observing_effects(self, layers: Mapping[str, nn.Module]) -> Iterator[None]:
        """While this is open, every backward pass through these layers is added.

        With a loss whose gradients are those of a random sign for each number that counts, the
        sums are the Kronecker factors of the mean square of what an error moves. A layer that no
        gradient reaches is added as by `observing`.

        Args:
            layers: see `observing`.
        """
        unreached = LayerStatistics(self.source_sha256)
        zero = torch.zeros((), requires_grad=True)  # so that weights need no gradients

        def hook(name: str, _module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
            seen = inputs[0].detach().to(torch.float32, copy=True)  # before anyone writes on it
            if name not in self.n_rows:
                unreached.add(name, seen)
            out = out + zero
            out.register_hook(bound(self.add_effect, name, seen))
            return out

        handles = [layer.register_forward_hook(bound(hook, name)) for name, layer in layers.items()]
        with _hooked(handles):
            yield
        for name in unreached.n_rows.keys() & self.n_rows.keys():
            del unreached.n_rows[name], unreached.second_moments[name]
        self.add_all(unreached)

    def add_all(self, other: "LayerStatistics") -> None:
        """Add the moments that another one has."""
        for name, n in other.n_rows.items():
            self.n_rows[name] = self.n_rows.get(name, 0) + n
        for name, moment in other.second_moments.items():
            _add(self.second_moments, name, moment)
        for name, moment in other.output_moments.items():
            _add(self.output_moments, name, moment)

    def add(self, name: str, inputs: Tensor, weights: Tensor | None = None) -> None:
        """Add (..., in_features) inputs of one layer, and (n,) weights of them if any."""
        rows = inputs.detach().reshape(-1, inputs.shape[-1]).float()
        weighted = rows if weights is None else rows * weights[:, None]
        _add(self.second_moments, name, weighted.t() @ rows)
        self.n_rows[name] = self.n_rows.get(name, 0) + len(rows)

    def add_effect(self, name: str, inputs: Tensor, gradients: Tensor) -> None:
        """Add (..., in_features) inputs of one layer with (..., out_features) gradients."""
        rows = gradients.detach().reshape(-1, gradients.shape[-1]).float()
        self.add(name, inputs, rows.square().mean(1))
        if rows.shape[1] <= WIDEST_OUTPUT:
            _add(self.output_moments, name, rows.t() @ rows)

    def saw(self, name: str) -> bool:
        """Whether a layer had inputs, and not zeros alone; without, no error can be fed back."""
        return name in self.n_rows and bool(self.second_moments[name].diagonal().any())

    def hessian(self, name: str) -> Hessian:
        """The means of one layer's moments.

        Raises:
            CheckpointError: that layer was not observed.
        """
        if name not in self.second_moments:
            raise CheckpointError(
                f"the calibration holds no inputs of {name}: it was made for another policy, "
                "or that layer never ran."
            )
        n, outputs = self.n_rows[name], self.output_moments.get(name)
        if outputs is not None:
            outputs = outputs / n if outputs.diagonal().any() else None
        return Hessian(self.second_moments[name] / n, outputs)

    def sha256(self) -> str:
        """Fingerprint of all that is in it."""
        digest = hashlib.sha256(json.dumps([self.n_rows, self.sensitivities]).encode())
        for name, moment in sorted(self._tensors().items()):
            digest.update(name.encode())
            digest.update(moment.contiguous().numpy())
        return digest.hexdigest()

    def _tensors(self) -> dict[str, Tensor]:
        return self.second_moments | {n + OUTPUTS: own for n, own in self.output_moments.items()}

    def save(self, path: Path) -> None:
        """Write atomically; an earlier state of the file is replaced."""
        content = {"n_rows": self.n_rows, "sensitivities": self.sensitivities}
        metadata = {
            "format": FORMAT,
            "source_sha256": self.source_sha256,
            "content": json.dumps(content),
        }
        with writing(path), atomic_file(path) as partial:
            save_file(self._tensors(), partial, metadata=metadata)

    @classmethod
    def load(cls, path: Path) -> "LayerStatistics":
        """The content of a file that `save` wrote.

        Raises:
            CheckpointError: it is missing, damaged, or holds something else.
        """
        file = open_tensors(path)
        if file.metadata.get("format") != FORMAT:
            raise CheckpointError(f"{path} is not a calibration file that we wrote.")
        about = as_record(dict(file.metadata), _Metadata, f"{path}: its metadata")
        content = parse_json(about.content, _Content, f"{path}: content in its metadata")
        inputs = {n: own for n, own in file.tensors.items() if not n.endswith(OUTPUTS)}
        outputs = {
            n.removesuffix(OUTPUTS): own for n, own in file.tensors.items() if n not in inputs
        }
        if other := (content.n_rows.keys() ^ inputs.keys()) | (outputs.keys() - inputs.keys()):
            raise CheckpointError(f"{path} is damaged: {min(other)[:99]} has no sum or no n_rows.")
        statistics = cls(about.source_sha256)
        statistics.second_moments = {n: _moment(t, n) for n, t in inputs.items()}
        statistics.output_moments = {n: _moment(t, n) for n, t in outputs.items()}
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


@contextmanager
def _hooked(handles: Sequence[RemovableHandle]) -> Iterator[None]:
    """Within, hooks stand."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _add(sums: dict[str, Tensor], name: str, moment: Tensor) -> None:
    own = moment.cpu()
    sums[name] = sums[name].add_(own) if name in sums else own


def is_statistics(path: Path) -> bool:
    """Whether `LayerStatistics.save` wrote that file."""
    try:
        return open_tensors(path).metadata.get("format", "").startswith(FORMAT_FAMILY)
    except CheckpointError:
        return False


def _moment(stored: StoredTensor, name: str) -> Tensor:
    """(n, n) float32 of a file that anyone may have written."""
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
