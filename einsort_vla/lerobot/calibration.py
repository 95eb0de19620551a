"""What a calibrated compression needs of a policy: what its layers see, and what they move."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from einsort_vla.codec import Curve, decode, encode
from einsort_vla.errors import UsageError, reason_of
from einsort_vla.lerobot.observations import Observation, spread
from einsort_vla.lerobot.policy import LoadedPolicy
from einsort_vla.plan import LayerStatistics

PROBE = Curve(2.0)
"""The code that is tried: 2 bits move the actions well beyond rounding."""
DEVIATION_LOOKS = 32  # of which the spread of the actions is known well enough

log = logging.getLogger(__name__)


def watch_layers(
    policy: LoadedPolicy,
    statistics: LayerStatistics,
    names: Sequence[str],
    observations: Sequence[Observation],
    on_progress: Callable[[], None] = lambda: None,
) -> None:
    """Add what the named weights' layers see at these observations, and how it moves the actions.

    The moments are those of the error that `action_error` counts: each executed number, in units of
    its deviation, gets a random sign, and their sum is what gradients are taken of. Where a
    policy's actions have no gradients, as those that are read from tokens, inputs are all alike.
    """
    try:
        statistics.add_all(_felt(policy, policy.layers(names), observations, on_progress))
        return
    except (RuntimeError, UsageError) as error:
        log.warning("all inputs count alike, as gradients cannot be had: %s", reason_of(error))
    watch_inputs(policy, statistics, names, observations, on_progress)


def watch_inputs(
    policy: LoadedPolicy,
    statistics: LayerStatistics,
    names: Sequence[str],
    observations: Sequence[Observation],
    on_progress: Callable[[], None] = lambda: None,
) -> None:
    """Add what the named weights' layers see at these observations, all inputs alike."""
    with statistics.observing(policy.layers(names)):
        for k, observation in enumerate(observations):
            policy.chunk(observation, k)
            on_progress()


def _felt(
    policy: LoadedPolicy,
    layers: Mapping[str, nn.Module],
    observations: Sequence[Observation],
    on_progress: Callable[[], None],
) -> LayerStatistics:
    """The moments by gradients.

    Raises:
        RuntimeError: torch's: the actions have no gradients, or writing in place has spoiled them.
    """
    found = LayerStatistics("")
    deviation = _deviation(policy, spread(observations, DEVIATION_LOOKS))
    with _gradients_of(policy.module), found.observing_effects(layers):
        for k, observation in enumerate(observations):
            executed = policy.executed(observation, k)
            generator = torch.Generator().manual_seed(k)
            signs = 2 * torch.randint(0, 2, executed.shape, generator=generator) - 1
            (signs.to(executed) * executed / deviation).sum().backward()
            on_progress()
    return found


def _deviation(policy: LoadedPolicy, observations: Sequence[Observation]) -> Tensor:
    """(n_action_steps, action_dim) of what is executed, over looks and steps."""
    with torch.inference_mode():
        chunks = torch.stack([policy.executed(o, k) for k, o in enumerate(observations)])
    spread_of = chunks.flatten(0, 1).std(0, correction=0).clamp_min(1e-6)
    return spread_of.expand_as(chunks[0]).clone()


@contextmanager
def _gradients_of(module: nn.Module) -> Iterator[None]:
    """Within, what a policy computes has gradients, although it acts without; its weights none."""
    wanted = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    module.requires_grad_(False)
    off = [
        patch.object(kind, name, lambda *_: None)
        for kind in (torch.no_grad, torch.inference_mode)
        for name in ("__enter__", "__exit__")
    ]
    try:
        for own in off:
            own.start()
        yield
    finally:
        for own in off:
            own.stop()
        for parameter, was_wanted in wanted:
            parameter.requires_grad_(was_wanted)


def action_chunks(policy: LoadedPolicy, observations: Sequence[Observation]) -> np.ndarray:
    """(n, n_action_steps, action_dim): what is executed at each, with noise fixed by its place."""
    return np.stack(
        [policy.chunk(o, k)[: policy.n_action_steps] for k, o in enumerate(observations)]
    )


def action_errors(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """(looks,) mean squared errors of chunks, (looks, steps, dimensions); each action dimension in
    units of its variance over all looks.
    """
    variance = expected.reshape(-1, expected.shape[-1]).var(0) + 1e-12
    return ((found - expected) ** 2 / variance).mean((1, 2))


def action_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Their mean."""
    return float(action_errors(found, expected).mean())


def measure_sensitivities(
    policy: LoadedPolicy,
    observations: Sequence[Observation],
    statistics: LayerStatistics,
    on_progress: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Action error per unit of a layer's relative weight error, by weight name.

    Each layer is coded alone by PROBE, with its errors fed back as in a calibrated compression.
    """
    expected = action_chunks(policy, observations)
    found = {}
    for name, layer in policy.layers(statistics.second_moments).items():
        weight = layer.weight
        hessian = statistics.hessian(name) if statistics.saw(name) else None
        coded = encode(weight, PROBE, hessian)
        with replaced({weight: decode(coded)}):
            moved = action_error(action_chunks(policy, observations), expected)
        found[name] = moved / PROBE.predicted_distortion(weight.shape[1])
        on_progress()
    return found


@contextmanager
def replaced(values: Mapping[Tensor, Tensor]) -> Iterator[None]:
    """Within, parameters have other values."""
    kept = {parameter: parameter.data for parameter in values}
    try:
        for parameter, value in values.items():
            parameter.data = value.to(parameter.data)
        yield
    finally:
        for parameter, data in kept.items():
            parameter.data = data
