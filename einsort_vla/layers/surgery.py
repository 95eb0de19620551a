"""Put the content of a compressed checkpoint into a freshly built model."""

from collections.abc import Collection, Mapping

from torch import Tensor, nn

from einsort_vla.checkpoint import Checkpoint
from einsort_vla.codec import CompressedTensor
from einsort_vla.errors import CheckpointError, ShapeError
from einsort_vla.kernels import DECODED, BackendChoice
from einsort_vla.layers.linear import CompressedLinear


def load_(model: nn.Module, checkpoint: Checkpoint, backend: BackendChoice = DECODED) -> nn.Module:
    """Replace each coded matrix's `nn.Linear` and set all other tensors, strictly, in place.

    The model may have been built `without_weights`. Its own types are kept: they are what it
    computes in.

    Raises:
        CheckpointError: a tensor is missing from the file or the model, or a coded name is not a
            linear layer of the model.
        ShapeError: a layer has another shape than its code.
    """
    for name, compressed in checkpoint.coded.items():
        _replace(model, name.removesuffix(".weight"), compressed, backend)
    modules = dict(model.named_modules())
    emptied = {name.rpartition(".")[0] for name in checkpoint.dropped} - {""}
    for path in sorted(emptied & modules.keys()):
        model.set_submodule(path, nn.Identity())
    coded_parts = {f"{n}_{part}" for n, c in checkpoint.coded.items() for part in c.parts}
    load_dense_(model, checkpoint.dense, coded_parts)
    return model


def _replace(
    model: nn.Module, path: str, compressed: CompressedTensor, backend: BackendChoice
) -> None:
    linear = _find(model, path)
    if not isinstance(linear, nn.Linear):
        raise CheckpointError(f"{path} is {type(linear).__name__}, not a linear layer.")
    if isinstance(_find(model, path.rpartition(".")[0]), nn.MultiheadAttention):
        raise CheckpointError(f"{path} cannot be coded: nn.MultiheadAttention reads its weight.")
    _check_shape(path, linear.weight, compressed.shape)
    bias = None if linear.bias is None else linear.bias.detach()
    dtype = linear.weight.dtype
    model.set_submodule(path, CompressedLinear(compressed, bias, backend, dtype))


def _find(model: nn.Module, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError as error:
        raise CheckpointError(f"the model has no module {path}, which the file names.") from error


def load_dense_(
    model: nn.Module, stored: Mapping[str, Tensor], coded_parts: Collection[str] = ()
) -> None:
    """Set the tensors of a model that are not coded, strictly, in place, in the model's own types.

    The model may have been built `without_weights`.

    Raises:
        CheckpointError: a tensor is missing on one side.
        ShapeError: one has another shape.
    """
    own = model.state_dict()
    names = check_fit(model, {name: tuple(t.shape) for name, t in stored.items()}, coded_parts)
    typed: dict[str, Tensor] = {}
    copies: dict[str, Tensor] = {}
    for name, source in names.items():
        if source not in copies:
            copies[source] = stored[source].to(own[name].dtype)
        typed[name] = copies[source]
    model.load_state_dict(typed, strict=False, assign=True)
    if left := [name for name, p in model.named_parameters() if p.is_meta]:
        raise CheckpointError(f"the file does not fit the model: {left[0]} got no value.")


def check_fit(
    model: nn.Module, stored: Mapping[str, tuple[int, ...]], coded_parts: Collection[str] = ()
) -> dict[str, str]:
    """Compare the names and shapes of a file with those of a model.

    Args:
        model: its weights are not looked at.
        stored: shape by name.
        coded_parts: names in the model that something else fills.

    Returns:
        The stored name of every name in the model: of those that share one tensor, a file holds
        one.

    Raises:
        CheckpointError: a tensor is missing on one side.
        ShapeError: one has another shape.
    """
    own = model.state_dict()
    names = {name: name for name in stored} | _tied(model, stored)
    missing, extra = own.keys() - set(coded_parts) - names.keys(), names.keys() - own.keys()
    if missing or extra:
        raise CheckpointError(
            f"the file does not fit the model: missing {sorted(missing)[:5]}, "
            f"left over {sorted(extra)[:5]}."
        )
    for name, source in names.items():
        _check_shape(name, own[name], stored[source])
    return names


def _tied(model: nn.Module, stored: Collection[str]) -> dict[str, str]:
    """Names of tensors that the model shares to those that the file holds them by."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {
        name: source
        for shared in names.values()
        if (source := next((one for one in shared if one in stored), None)) is not None
        for name in shared
        if name not in stored
    }


def _check_shape(name: str, own: Tensor, stored: tuple[int, ...]) -> None:
    if tuple(own.shape) != stored:
        raise ShapeError(
            f"{name} has shape {tuple(own.shape)} in the model and {stored} in the file."
        )
