"""The method `einsort` of Transformers: its settings, and its hooks."""

# Transformers' base classes declare less than they pass on.
# pyright: reportIncompatibleMethodOverride=false, reportIncompatibleVariableOverride=false
# pyright: reportAttributeAccessIssue=false, reportPrivateImportUsage=false

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn
from transformers.core_model_loading import ConversionOps
from transformers.pytorch_utils import Conv1D
from transformers.quantizers import HfQuantizer, auto
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.quantizers_utils import should_convert_module
from transformers.utils.quantization_config import QuantizationConfigMixin

from einsort_vla.checkpoint import (
    METHOD,
    check_asked,
    check_parts,
    is_transposed,
    linear_layers,
    linear_shape,
)
from einsort_vla.codec import Codec, encode
from einsort_vla.errors import CheckpointError, EinSortError, UsageError
from einsort_vla.kernels import BackendChoice, check_available
from einsort_vla.layers import CompressedLinear
from einsort_vla.names import DEFAULT_FORM, DENSE
from einsort_vla.plan import Candidates, Plan, allocate, check_rate, options
from einsort_vla.reading import as_record

logger = logging.getLogger(__name__)


class _Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a config.json may say of the method; its maker may be a stranger."""

    rate: float
    codec: str
    backend: str
    modules_to_not_convert: list[str] | None
    plan: dict[str, Any] | None


@register_quantization_config(METHOD)
class EinSortConfig(QuantizationConfigMixin):
    """How the linear layers of a model are compressed.

    Args:
        rate: share of their bfloat16 bytes to remove, 0 to 0.95; all that is stored is counted.
        codec: form of the code, with options of its menu; one that needs no look at the weights
            (`curve`, whose matrices are then all rotated, or `scalar`).
        backend: how coded weights are multiplied here; it is not saved with the model, and may be
            chosen anew whenever a saved or compressed one is loaded.
        modules_to_not_convert: modules left dense; by default the head over the vocabulary. Weights
            that are tied to others are always dense.
        plan: code of each matrix; made when a model is compressed, stored with it.

    Raises:
        UsageError: the rate, the codec or the backend cannot be, or there is no such setting.
        CheckpointError: a setting has another type.
    """

    def __init__(
        self,
        rate: float = 0.75,
        codec: str = DEFAULT_FORM,
        backend: str = "decoded",
        modules_to_not_convert: Sequence[str] | None = None,
        plan: Mapping[str, Any] | None = None,
        quant_method: str = METHOD,
        **other: Any,
    ) -> None:
        given = {
            "rate": rate, "codec": codec, "backend": backend,
            "modules_to_not_convert": modules_to_not_convert, "plan": plan,
        }  # fmt: skip
        source = "EinSortConfig (quantization_config of config.json)"
        if other or quant_method != METHOD:
            name = min(other, default=quant_method)
            raise UsageError(f"{source} has no setting {name!r}.")
        own = as_record(given, _Settings, source)
        self.quant_method: Any = METHOD
        try:
            self.rate, self.codec = check_rate(own.rate), str(Codec.parse(own.codec))
            self.backend = str(BackendChoice.parse(own.backend))
            self.modules_to_not_convert = _patterns(own.modules_to_not_convert)
        except UsageError as error:
            raise UsageError(f"{source}: {error}") from error
        self.plan: Mapping[str, Any] | None = own.plan

    def to_dict(self) -> dict[str, Any]:
        """What is saved with a model; the backend is for whoever loads it to choose."""
        return {name: own for name, own in super().to_dict().items() if name != "backend"}

    def get_loading_attributes(self) -> dict[str, Any]:
        """What the caller of `from_pretrained` decides, whatever is saved with a model."""
        return {"backend": self.backend}


def _patterns(names: list[str] | None) -> list[str] | None:
    """The names, each of which Transformers takes for a regular expression, too."""
    for name in names or []:
        try:
            re.compile(name)
        except re.error as error:
            raise UsageError(
                f"modules_to_not_convert: {name!r} is no name of a module, and no regular "
                f"expression: {error}."
            ) from error
    return names


# Transformers asks only the classes in this tuple for their `get_loading_attributes`.
auto.LOADING_ATTRIBUTES_CONFIG_TYPES += (EinSortConfig,)


@register_quantizer(METHOD)
class EinSortQuantizer(HfQuantizer):
    """Transformers' hooks: codes each weight as it is read, or makes room for coded ones."""

    requires_calibration = False
    quantization_config: EinSortConfig

    def __init__(self, quantization_config: EinSortConfig, **how: Any) -> None:
        super().__init__(quantization_config, **how)
        self.refusals: list[EinSortError] = []

    @property
    def is_trainable(self) -> bool:
        return False

    def is_serializable(self, *_: Any, **__: Any) -> bool:
        return True

    def validate_environment(self, *_: Any, **__: Any) -> None:
        """Asked before a weight is read; Transformers hides in a report what is raised later.

        Raises:
            MissingDependency: the backend that was named cannot run here.
        """
        check_available(self.quantization_config.backend)

    def update_tp_plan(self, config: Any) -> Any:
        """Looks at the model's config, of which no other hook hears before the model is built.

        Raises:
            CheckpointError: it asks for what no model needs.
        """
        check_asked(config.to_dict(), f"{config.name_or_path}: config.json")
        return super().update_tp_plan(config)

    def param_needs_quantization(self, model: nn.Module, param_name: str, **_: Any) -> bool:
        return not self.pre_quantized and param_name in self.plan.tensors

    def get_quantize_ops(self) -> ConversionOps:
        return _Encode(self)

    def _process_model_before_weight_loading(
        self, model: Any, checkpoint_files: Sequence[str] | None = None, **_: Any
    ) -> None:
        config = self.quantization_config
        if config.plan is None:
            if self.pre_quantized:
                raise CheckpointError(f"{model.name_or_path}: its quantization_config has no plan.")
            config.plan = self._make_plan(model).as_dict()
        self.plan = Plan.from_dict(config.plan, f"{model.name_or_path}: the plan in config.json")
        layers = self._planned_layers(model)
        self._transposed = {path for path, layer in layers.items() if is_transposed(layer)}
        if self.pre_quantized:
            how = BackendChoice.parse(config.backend)
            for path, layer in layers.items():
                planned, bias = self.plan.tensors[f"{path}.weight"], layer.bias
                own = planned.spec, planned.shape, bias, how, layer.weight.dtype
                model.set_submodule(path, CompressedLinear.empty(*own))
            if checkpoint_files:
                check_parts([Path(file) for file in checkpoint_files], self.plan, model)

    def _planned_layers(self, model: Any) -> dict[str, Any]:
        """Path to linear layer of what the plan codes; a stranger may have written it."""
        layers = {f"{path}.weight": layer for path, layer in linear_layers(model, []).items()}
        shapes = {name: linear_shape(layer) for name, layer in layers.items()}
        for name, planned in self.plan.tensors.items():
            if (found := shapes.get(name)) != planned.shape:
                kind = f"has shape {found} there" if found else "is none of its linear layers"
                raise CheckpointError(
                    f"{model.name_or_path}: the plan codes {name} as {planned.shape}, and this "
                    f"{type(model).__name__} is another model: it {kind}. Compress the dense model "
                    "again."
                )
        return {name.removesuffix(".weight"): layers[name] for name in self.plan.tensors}

    def _process_model_after_weight_loading(self, model: Any, **_: Any) -> Any:
        if self.refusals:
            raise self.refusals[0]
        for name in self.plan.tensors:
            if not isinstance(model.get_submodule(name.removesuffix(".weight")), CompressedLinear):
                raise CheckpointError(
                    f"{model.name_or_path} lacks {name}, which {type(model).__name__} needs: its "
                    "weight files belong to another model, or are quantized already."
                )
        return model

    def _make_plan(self, model: Any) -> Plan:
        config = self.quantization_config
        layers = linear_layers(model, config.modules_to_not_convert)
        for name in config.modules_to_not_convert or []:
            if all(should_convert_module(path, [name]) for path, _ in model.named_modules()):
                logger.warning("modules_to_not_convert: %s has no %r.", type(model).__name__, name)
        shapes = {f"{path}.weight": linear_shape(layer) for path, layer in layers.items()}
        codec = Codec.parse(config.codec)
        with torch.device("cpu"):  # Transformers builds models on the meta device
            choices = {n: options(s, codec) for n, s in shapes.items() if s}
        if any(len(choice) < 2 for choice in choices.values()):
            raise UsageError(
                f"the codec {str(codec)!r} plans by the weights, which are not read yet. Use "
                "'curve' or 'scalar' here, or compress the folder: einsort-vla compress SRC DST "
                f"--rate {config.rate} --codec '{codec}'"
            )
        if (
            config.rate and model.dtype != torch.bfloat16
        ):  # which weights of other types may not fit
            choices = {n: [c for c in own if c.spec.form != DENSE] for n, own in choices.items()}
        plan = allocate(Candidates(codec, choices), config.rate)
        tied = model.all_tied_weights_keys  # not tied yet: each name has a parameter of its own
        n_weights = sum(own.numel() for name, own in model.named_parameters() if name not in tied)
        if plan.n_coded < n_weights / 2:
            logger.warning(
                "%.1f %% of the weights of %s are coded; the others stay as they are.",
                100 * plan.n_coded / n_weights, type(model).__name__,
            )  # fmt: skip
        return plan

    def _dequantize(self, model: Any, dtype: torch.dtype | str | None = None) -> Any:
        own = _as_dtype(dtype)
        for path, module in list(model.named_modules()):
            if isinstance(module, CompressedLinear):
                plain = module.decoded(own)
                is_flipped = path in self._transposed
                model.set_submodule(path, _transposed(plain) if is_flipped else plain)
        return model


def _as_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """A type, or its name: that is what a model's configuration holds once it was saved."""
    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype
    found = getattr(torch, dtype, None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise UsageError(f"dequantize: {dtype!r} is no type of weights; give torch.float32.")
    return found


def _transposed(linear: nn.Linear) -> nn.Module:
    """The same layer as GPT-2 has it, with a weight of (in_features, out_features)."""
    layer = Conv1D(0, 0)
    layer.nf, layer.nx = linear.out_features, linear.in_features
    layer.weight = nn.Parameter(linear.weight.t().contiguous(), requires_grad=False)
    layer.bias = linear.bias
    return layer


class _Encode(ConversionOps):
    """Puts a coded layer in the place of the linear layer whose weight was read."""

    def __init__(self, quantizer: EinSortQuantizer) -> None:
        self._quantizer = quantizer

    def convert(
        self,
        input_dict: Mapping[str, Any],
        model: Any = None,
        missing_keys: set[str] | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """Code what the plan has, and hand on the rest: one stored tensor may hold several."""
        coded = input_dict.keys() & self._quantizer.plan.tensors.keys()
        for name in coded:
            value = input_dict[name]
            try:
                self._replace(model, name, value[0] if isinstance(value, list) else value)
            except EinSortError as error:  # raised here, it would be lost in a report
                own = type(error)(f"{model.name_or_path}: {name}: {error}")
                self._quantizer.refusals.append(own)
            if missing_keys is not None:
                missing_keys.discard(name)
        return {name: value for name, value in input_dict.items() if name not in coded}

    def _replace(self, model: Any, name: str, weight: Tensor) -> None:
        path = name.removesuffix(".weight")
        linear, planned = model.get_submodule(path), self._quantizer.plan.tensors[name]
        matrix = weight.t() if is_transposed(linear) else weight
        compressed = encode(matrix, planned.spec)
        backend = BackendChoice.parse(self._quantizer.quantization_config.backend)
        layer = CompressedLinear(compressed, linear.bias, backend, linear.weight.dtype)
        model.set_submodule(path, layer.to(weight.device))
