"""Put the content of a compressed checkpoint into a freshly built dense model."""

from torch import nn

from einsort_vla.checkpoint import Checkpoint
from einsort_vla.errors import CheckpointError, ShapeError
from einsort_vla.layers.linear import CompressedLinear


def load_(model: nn.Module, checkpoint: Checkpoint, backend: str = "dense") -> nn.Module:
    """Replace each coded matrix's `nn.Linear` and load all other tensors, strictly, in place.

    Raises:
        CheckpointError: a tensor is missing from the file or the model, or a coded name is not a
            linear layer of the model.
        ShapeError: a layer has another shape than its code.
    """
    for name, compressed in checkpoint.coded.items():
        path = name.removesuffix(".weight")
        try:
            linear = model.get_submodule(path)
        except AttributeError as error:
            raise CheckpointError(
                f"the model has no module {path}, which the file codes."
            ) from error
        if not isinstance(linear, nn.Linear):
            raise CheckpointError(f"{path} is {type(linear).__name__}, not a linear layer.")
        if tuple(linear.weight.shape) != compressed.shape:
            raise ShapeError(
                f"{path} has shape {tuple(linear.weight.shape)} in the model and "
                f"{compressed.shape} in the file."
            )
        bias = None if linear.bias is None else linear.bias.detach()
        model.set_submodule(path, CompressedLinear(compressed, bias, backend))
    own = model.state_dict()
    coded_parts = {f"{n}_{part}" for n, c in checkpoint.coded.items() for part in c.parts}
    expected = own.keys() - coded_parts
    missing, extra = expected - checkpoint.dense.keys(), checkpoint.dense.keys() - expected
    if missing or extra:
        raise CheckpointError(
            f"the file does not fit the model: missing {sorted(missing)[:5]}, "
            f"left over {sorted(extra)[:5]}."
        )
    for name, tensor in checkpoint.dense.items():
        if own[name].shape != tensor.shape:
            raise ShapeError(
                f"{name} has shape {tuple(own[name].shape)} in the model and "
                f"{tuple(tensor.shape)} in the file."
            )
        own[name].copy_(tensor)
    return model
