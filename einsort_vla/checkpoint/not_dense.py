"""Folders that look like dense models and are none: adapters, placeholders, quantized weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from einsort_vla.errors import CheckpointError

ADAPTER = "adapter_config.json"
_WRAPPED = "_orig_mod."
_QUANTIZED = {  # what other tools append to the name of a module or of its weight
    ".qweight": "GPTQ or AWQ",
    ".qzeros": "GPTQ or AWQ",
    ".absmax": "bitsandbytes",
    ".quant_map": "bitsandbytes",
    ".SCB": "bitsandbytes",
    ".weight_format": "bitsandbytes",
    ".weight_packed": "compressed-tensors",
    ".weight_scale": "scales beside the weights",
    ".weight_scale_inv": "FP8",
    "_proj_blocks": "MXFP4",
    ".W_q": "HQQ",
    ".weight._data": "Quanto",
}
_INTEGERS = ("U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "BOOL")


def check_no_adapter(folder: Path) -> None:
    """Refuse the folder of a LoRA adapter, with or without a model beside it.

    Raises:
        CheckpointError: it is one.
    """
    if (folder / ADAPTER).is_file():
        raise CheckpointError(
            f"{folder} is an adapter ({ADAPTER} is in it), not a model. Merge it into its base "
            "model first: PeftModel.from_pretrained(base, folder).merge_and_unload(), then "
            "save_pretrained; give that folder."
        )


def check_dense(folder: Path, tensors: Mapping[str, tuple[str, Sequence[int]]]) -> None:
    """Refuse weight files that hold no plain matrices, before any work.

    Args:
        folder: that the files lie in.
        tensors: name to type, in the names of safetensors (`BF16`), and shape.

    Raises:
        CheckpointError: another tool quantized the weights, torch.compile's wrapper or ZeRO-3's
            placeholders were saved.
    """
    if wrapped := [name for name in tensors if _WRAPPED in f".{name}"]:
        raise CheckpointError(
            f"{folder} names a tensor {wrapped[0]}: the wrapper of torch.compile was saved, and no "
            "loader finds its weights. Save the model inside it, with "
            "model._orig_mod.save_pretrained(DIR)."
        )
    weights = {name: own for name, own in tensors.items() if name.endswith(".weight")}
    if empty := [name for name, (_, shape) in weights.items() if 0 in shape]:
        raise CheckpointError(
            f"{folder} holds no values of {empty[0]} and {len(empty) - 1} more: these are the "
            "placeholders of DeepSpeed ZeRO-3. Gather the weights first, with its zero_to_fp32.py."
        )
    integers = [n for n, (dtype, shape) in weights.items() if len(shape) > 1 and dtype in _INTEGERS]
    marked = {n: tool for n in tensors for end, tool in _QUANTIZED.items() if n.endswith(end)}
    if found := marked | dict.fromkeys(integers, "integers"):
        name, tool = min(found.items())
        raise CheckpointError(
            f"{folder} is quantized already: it holds {name} ({tool}). Give the dense policy "
            "instead."
        )
