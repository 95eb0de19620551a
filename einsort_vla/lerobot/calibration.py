"""What a calibrated compression needs of a policy: its layers' inputs, and which layers matter."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
from torch import Tensor

from einsort_vla.codec import Curve, decode, encode
from einsort_vla.lerobot.observations import Observation
from einsort_vla.lerobot.policy import LoadedPolicy
from einsort_vla.plan import InputStatistics

PROBE = Curve(2.0)
"""The code that is tried: 2 bits move the actions well beyond rounding."""


def watch_inputs(
    policy: LoadedPolicy,
    statistics: InputStatistics,
    names: Sequence[str],
    observations: Iterable[Observation],
) -> None:
    """Add what the named weights' layers see when the policy sees these observations."""
    with statistics.observing(policy.layers(names)):
        for k, observation in enumerate(observations):
            policy.chunk(observation, k)


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
    statistics: InputStatistics,
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
