"""Transformers: `EinSortConfig` compresses a model while it is loaded, saved ones load as they are.

Importing this module registers the method `einsort`; Transformers has no other way to find it.

    from einsort_vla.huggingface import EinSortConfig
    model = AutoModelForCausalLM.from_pretrained(ID, quantization_config=EinSortConfig(rate=0.75))
    model.save_pretrained(FOLDER)
"""

# Transformers' base classes declare less than they pass on.
# pyright: reportIncompatibleMethodOverride=false, reportIncompatibleVariableOverride=false
# pyright: reportAttributeAccessIssue=false, reportPrivateImportUsage=false

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoTokenizer
from transformers.core_model_loading import ConversionOps
from transformers.quantizers import HfQuantizer
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from einsort_vla.checkpoint import METHOD, DenseFolder, linear_layers
from einsort_vla.codec import Codec, encode
from einsort_vla.errors import CheckpointError, EinSortError, UsageError
from einsort_vla.kernels import BackendChoice
from einsort_vla.layers import CompressedLinear
from einsort_vla.plan import Candidates, InputStatistics, Plan, allocate, check_rate, options

BLOCK_TOKENS = 512  # that a text is read in


@register_quantization_config(METHOD)
class EinSortConfig(QuantizationConfigMixin):
    """How the linear layers of a model are compressed.

    Args:
        rate: share of their bfloat16 bytes to remove, 0 to 0.95; all that is stored is counted.
        codec: form of the code, with options of its menu; one that needs no look at the weights
            (`leader`, whose matrices are then all rotated, or `scalar`).
        backend: how coded weights are multiplied here; it is not saved with the model.
        modules_to_not_convert: modules left dense; by default the head over the vocabulary.
        plan: code of each matrix; made when a model is compressed, stored with it.

    Raises:
        UsageError: the rate, the codec or the backend cannot be.
    """

    def __init__(
        self,
        rate: float = 0.75,
        codec: str = "leader",
        backend: str = "decoded",
        modules_to_not_convert: list[str] | None = None,
        plan: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        self.quant_method: Any = METHOD
        self.rate, self.codec = check_rate(rate), str(Codec.parse(codec))
        self.backend = str(BackendChoice.parse(backend))
        self.modules_to_not_convert = modules_to_not_convert
        self.plan = plan

    def to_dict(self) -> dict[str, Any]:
        """What is saved with a model; the backend is for whoever loads it to choose."""
        return {name: own for name, own in super().to_dict().items() if name != "backend"}


@register_quantizer(METHOD)
class EinSortQuantizer(HfQuantizer):
    """Transformers' hooks: codes each weight as it is read, or makes room for coded ones."""

    requires_calibration = False
    quantization_config: EinSortConfig

    @property
    def is_trainable(self) -> bool:
        return False

    def is_serializable(self, *_: Any, **__: Any) -> bool:
        return True

    def param_needs_quantization(self, model: nn.Module, param_name: str, **_: Any) -> bool:
        return not self.pre_quantized and param_name in self.plan.tensors

    def get_quantize_ops(self) -> ConversionOps:
        return _Encode(self)

    def _process_model_before_weight_loading(self, model: Any, **_: Any) -> None:
        config = self.quantization_config
        if config.plan is None:
            config.plan = self._make_plan(model).as_dict()
        self.plan = Plan.from_dict(config.plan)
        if self.pre_quantized:
            for name, planned in self.plan.tensors.items():
                path = name.removesuffix(".weight")
                linear = model.get_submodule(path)
                how = BackendChoice.parse(config.backend), linear.weight.dtype
                layer = CompressedLinear.empty(planned.spec, planned.shape, linear.bias, *how)
                model.set_submodule(path, layer)

    def _make_plan(self, model: Any) -> Plan:
        config = self.quantization_config
        layers = linear_layers(model, config.modules_to_not_convert)
        shapes = {
            f"{path}.weight": (layer.out_features, layer.in_features)
            for path, layer in layers.items()
        }
        codec = Codec.parse(config.codec)
        choices = {n: options(s, codec, has_outlying_inputs=True) for n, s in shapes.items()}
        if any(len(choice) < 2 for choice in choices.values()):
            raise UsageError(f"--codec {codec} must see the weights before it can plan.")
        return allocate(Candidates(codec, choices), config.rate)

    def _dequantize(self, model: Any, dtype: torch.dtype | None = None) -> Any:
        for path, module in list(model.named_modules()):
            if isinstance(module, CompressedLinear):
                model.set_submodule(path, module.decoded(dtype))
        return model


class _Encode(ConversionOps):
    """Puts a coded layer in the place of the linear layer whose weight was read."""

    def __init__(self, quantizer: EinSortQuantizer) -> None:
        self._quantizer = quantizer

    def convert(
        self,
        input_dict: Mapping[str, Any],
        full_layer_name: str | None = None,
        model: Any = None,
        missing_keys: set[str] | None = None,
        **_: Any,
    ) -> dict[str, Tensor]:
        (value,) = input_dict.values()
        weight = value[0] if isinstance(value, list) else value
        assert full_layer_name is not None
        path = full_layer_name.removesuffix(".weight")
        linear, planned = model.get_submodule(path), self._quantizer.plan.tensors[full_layer_name]
        try:
            compressed = encode(weight, planned.spec)
        except EinSortError as error:
            raise type(error)(f"{full_layer_name}: {error}") from error
        backend = BackendChoice.parse(self._quantizer.quantization_config.backend)
        layer = CompressedLinear(compressed, linear.bias, backend, linear.weight.dtype)
        model.set_submodule(path, layer.to(weight.device))
        if missing_keys is not None:
            missing_keys.discard(full_layer_name)
        return {}


def watch_text(
    dense: DenseFolder, text: Path, statistics: InputStatistics, max_tokens: int = 32768
) -> int:
    """Add what a language model's layers see while it reads a text; the number of tokens read.

    Args:
        dense: a Transformers model with its tokenizer.
        text: a UTF-8 file, read from its beginning in blocks of 512 tokens.
        statistics: what is added to.
        max_tokens: how many are enough.

    Raises:
        CheckpointError: there is no such text, it has less than a block, or no tokenizer goes
            with the model.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(dense.folder)
        content = text.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        lack = f"the text {text} cannot be read for {dense.folder}"
        raise CheckpointError(f"{lack}: {error}") from error
    ids = tokenizer(content, return_tensors="pt", verbose=False).input_ids[0, :max_tokens]
    blocks = ids[: len(ids) // BLOCK_TOKENS * BLOCK_TOKENS].view(-1, BLOCK_TOKENS)
    if not len(blocks):
        raise CheckpointError(f"{text} has {len(ids)} tokens; at least {BLOCK_TOKENS} are needed.")
    model_class = getattr(transformers, dense.config["architectures"][0])
    model = model_class.from_pretrained(dense.folder, dtype=torch.float32).eval()
    layers = {
        n: model.get_submodule(own.removesuffix(".weight")) for n, own in dense.in_model.items()
    }
    with torch.inference_mode(), statistics.observing(layers):
        for block in blocks:
            model(input_ids=block[None])
    return blocks.numel()
