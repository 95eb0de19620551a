"""The caches that bench_kv compares: the EinSort paper's variants, ours, and Transformers' own."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, QuantizedCache

from einsort_vla.cache import EinSortCache
from einsort_vla.codec import DENSE_BITS, CodecSpec, Network
from einsort_vla.codec.network.score import Map, Reduction
from einsort_vla.errors import MissingDependency

CORE_RATE = 0.5  # of the paper's table 4
TOPOLOGY_RATES = (0.1, 0.2)  # of its table 2, which has the shares kept: lower error at "90 %"
# Signs split, a linear map is the absolute power 1, and the signed power the absolute one.
PLAIN_MAPS: tuple[tuple[Map, float], ...] = (
    ("linear", 1.0), ("power", 0.5), ("abs_power", 0.5), ("abs_power", 1.0), ("exp", 1.0),
    ("log_shift", 1.0), ("log_scale", 1.0),
)  # fmt: skip
SPLIT_MAPS = PLAIN_MAPS[2:]
EXPONENTS = (0.3, 0.7)  # beside 0.5 and 1, of the paper's table 1: the best for each reduction
REDUCTIONS: tuple[Reduction, ...] = ("prod", "mean", "max", "min", "median", "std")
TOPOLOGIES = ("svd", "tt", "tr", "tucker", "cp")
CURVE_BITS = (4.5, 4.0, 3.5, 3.0, 2.5, 2.25)
SCALAR_BITS = (4.5, 3.5, 2.5)
# Backend, bits, axis of keys and of values: Transformers' defaults of each; and KIVI's, by channel
# and by token, for HQQ, whose axis 0 runs along tokens. Its 3 bits fail along axis 1.
QUANTIZED = (("quanto", 4, 0, 0), ("quanto", 2, 0, 0), ("hqq", 4, 1, 1), ("hqq", 2, 1, 1),
             ("hqq", 4, 0, 1), ("hqq", 3, 0, 0), ("hqq", 2, 0, 1))  # fmt: skip
GROUP = 64
Table = Literal["order", "scores", "topologies", "folds", "bits"]
Layers = Sequence[tuple[Tensor, Tensor]]
"""Keys and values of every layer, (segments, heads, tokens, head_dim)."""


def prefill(model: Any, ids: Tensor) -> tuple[Layers, Tensor]:
    """Exact keys and values of (n, tokens) ids, and the likeliest next token of each, (n, 1)."""
    cache = DynamicCache()
    with torch.inference_mode():
        logits = model(ids, past_key_values=cache, logits_to_keep=1).logits
    layers: Any = cache.layers
    return [(layer.keys, layer.values) for layer in layers], logits[:, -1:].argmax(-1)


@dataclass(frozen=True)
class Filled:
    """A cache that holds the prefix of some segments, and its bits an entry."""

    cache: Cache
    first: int  # of the segments
    last: int
    bits: float  # everything counted
    core_rate: float | None


@dataclass(frozen=True)
class Arm:
    """One way to hold the prefix.

    Attributes:
        name: unique.
        table: that it stands in.
    """

    name: str
    table: Table

    def fill(self, layers: Layers) -> list[Filled]:
        """Caches that hold all segments between them."""
        cache = DynamicCache()
        for k, (keys, values) in enumerate(layers):
            cache.update(keys, values, k)
        return [Filled(cache, 0, len(layers[0][0]), float(DENSE_BITS), None)]


@dataclass(frozen=True)
class EinSortArm(Arm):
    """Our cache."""

    codec: str | CodecSpec
    rate: float

    def fill(self, layers: Layers) -> list[Filled]:
        codec = self.codec
        if isinstance(codec, Network):
            # As indices, orders are coded fast; they are counted as the shorter Lehmer codes.
            codec = replace(codec, storage="index")
        cache = EinSortCache(codec, self.rate)
        for k, (keys, values) in enumerate(layers):
            cache.update(keys, values, k)
        report = cache.report()
        assert report.bits_per_entry is not None
        bits, core = report.bits_per_entry, report.core_kept_fraction
        states = cache.layers[0].blocks[0].keys[0]
        if "order" in report.bits_by_part:
            orders = states.code.spec.order_bits(states.code.shape(states.size))
            bits -= report.bits_by_part["order"] * (1 - orders["lehmer"] / max(orders["index"], 1))
        rate = None if core is None else 1 - core
        return [Filled(cache, 0, len(layers[0][0]), bits, rate)]


@dataclass(frozen=True)
class QuantizedArm(Arm):
    """Transformers' quantized cache; its groups would mix segments, which are filled apart."""

    backend: str
    bits: int
    axes: tuple[int, int]
    config: Any

    def fill(self, layers: Layers) -> list[Filled]:
        found = []
        for k in range(len(layers[0][0])):
            cache = self._empty()
            for layer, (keys, values) in enumerate(layers):
                cache.update(keys[k : k + 1], values[k : k + 1], layer)
            bits = sum(_bits(q) for own in cache.layers for q in _quantized(own))
            entries = sum(keys[0].numel() + values[0].numel() for keys, values in layers)
            found.append(Filled(cache, k, k + 1, bits / entries, None))
        return found

    def _empty(self) -> QuantizedCache:
        try:
            return QuantizedCache(
                self.backend, self.config, self.bits, *self.axes, q_group_size=GROUP
            )
        except ImportError as error:
            package = {"quanto": "optimum-quanto ninja", "hqq": "hqq"}[self.backend]
            raise MissingDependency(
                f"{self.name} needs a package that is not installed: pip install {package}"
            ) from error


def all_arms(config: Any, with_cp: bool) -> list[Arm]:
    """Every arm, the exact cache first.

    Args:
        config: of the model.
        with_cp: also the canonical decomposition, which takes minutes a segment.
    """
    plain = Network(1, scope="none", sign_split=False, is_gauged=False)
    orders = {
        "SVD": plain,
        "SVD, gauge": replace(plain, is_gauged=True),
        "sign split, no sorting": replace(plain, sign_split=True),
        "sign split, no sorting, gauge": replace(plain, sign_split=True, is_gauged=True),
    }
    names = [name for name in TOPOLOGIES if with_cp or name != "cp"]
    best, folded = Network(1), Network(1, power=0.5, fold="slices")
    return [
        Arm("exact", "order"),
        *(EinSortArm(name, "order", spec, CORE_RATE) for name, spec in orders.items()),
        EinSortArm(_name(best), "scores", best, CORE_RATE),
        *(EinSortArm(f"curve, {b} bits", "bits", "curve", _rate(b)) for b in CURVE_BITS),
        *(
            QuantizedArm(f"{backend} {bits} bits, axes {key} {value}", "bits", backend, bits,
                         (key, value), config)
            for backend, bits, key, value in QUANTIZED
        ),
        *(EinSortArm(f"scalar, {b} bits", "bits", "scalar", _rate(b)) for b in SCALAR_BITS),
        *(
            EinSortArm(f"{name}, {1 - rate:g} kept", "topologies",
                       replace(folded, decomposition=name), rate)
            for rate, name in itertools.product(TOPOLOGY_RATES, names)
        ),
        *(
            EinSortArm(name, "folds", replace(best, decomposition=name), CORE_RATE)
            for name in names[1:]
        ),
        *(EinSortArm(_name(s), "scores", s, CORE_RATE) for s in _scores() if s != best),
    ]  # fmt: skip


def _rate(bits: float) -> float:
    return 1 - bits / DENSE_BITS


def _scores() -> list[Network]:
    """Table 4: every map and reduction, plain and split, with and without a gauge; and table 1."""
    grid = [
        Network(1, map=name, power=power, reduction=reduction, sign_split=split, is_gauged=gauged)
        for reduction in REDUCTIONS
        for split, maps in ((False, PLAIN_MAPS), (True, SPLIT_MAPS))
        for (name, power), gauged in itertools.product(maps, (False, True))
    ]
    return grid + [
        Network(1, power=power, reduction=reduction)
        for reduction in REDUCTIONS
        for power in EXPONENTS
    ]


def _name(spec: Network) -> str:
    return f"{row_name(spec)}, {spec.reduction}"


def row_name(spec: Network) -> str:
    """The row of table 4 that a network stands in."""
    flags = [", sign split"] * spec.sign_split + [", gauge"] * spec.is_gauged
    return f"{spec.map} p={spec.power:g}{''.join(flags)}"


def _quantized(layer: Any) -> list[Any]:
    return [layer._quantized_keys, layer._quantized_values]


def _bits(quantized: Any) -> int:
    """Stored bits of a tensor of quanto or HQQ; scales and zero points as in a bfloat16 model."""
    if isinstance(quantized, tuple):
        packed, meta = quantized
        tensors = [packed, meta["scale"], meta["zero"]]
    else:
        tensors = [quantized._data._data, quantized._scale, quantized._shift]
    return sum(
        t.numel() * (DENSE_BITS if t.is_floating_point() else 8 * t.element_size()) for t in tensors
    )
