"""Put the content of a compressed checkpoint into a freshly built model."""

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
    for path in sorted({name.rpartition(".")[0] for name in checkpoint.dropped} & modules.keys()):
        model.set_submodule(path, nn.Identity())
    _load_remainder(model, checkpoint)
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


def _load_remainder(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Copy the tensors that are not coded; the file and the model must name the same ones."""
    own, dense = model.state_dict(), dict(checkpoint.dense)
    _tie(model, dense)
    coded_parts = {f"{n}_{part}" for n, c in checkpoint.coded.items() for part in c.parts}
    expected = own.keys() - coded_parts
    missing, extra = expected - dense.keys(), dense.keys() - expected
    if missing or extra:
        raise CheckpointError(
            f"the file does not fit the model: missing {sorted(missing)[:5]}, "
            f"left over {sorted(extra)[:5]}."
        )
    for name, tensor in dense.items():
        _check_shape(name, own[name], tuple(tensor.shape))
    typed = {name: tensor.to(own[name].dtype) for name, tensor in dense.items()}
    model.load_state_dict(typed, strict=False, assign=True)
    if left := [name for name, p in model.named_parameters() if p.is_meta]:
        raise CheckpointError(f"the file does not fit the model: {left[0]} got no value.")


def _tie(model: nn.Module, dense: dict[str, Tensor]) -> None:
    """Give tensors that the model shares, and the file holds once, to all their names."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    for shared in names.values():
        if stored := [name for name in shared if name in dense]:
            dense.update({name: dense[stored[0]] for name in shared if name not in dense})


def _check_shape(name: str, own: Tensor, stored: tuple[int, ...]) -> None:
    if tuple(own.shape) != stored:
        raise ShapeError(
            f"{name} has shape {tuple(own.shape)} in the model and {stored} in the file."
        )
