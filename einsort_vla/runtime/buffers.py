"""Where the values of a chunk lie, on the GPU and in the host's memory: planned once."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from einsort_vla.errors import CheckpointError
from einsort_vla.runtime.flow import MOVED_ACTIONS
from einsort_vla.runtime.manifest import (
    ACTIONS,
    DENOISE_STEP,
    EXPORT_AGAIN,
    NOISE,
    NOISY_ACTIONS,
    PARTS,
    TIME,
    VELOCITY,
    Manifest,
    Part,
    Value,
)

ALIGNMENT = 256  # bytes; TensorRT asks for it


@dataclass(frozen=True)
class Plan:
    """Offsets, in bytes, into one block of the GPU's memory and one of the host's.

    Attributes:
        values: what the engines take and give, by name: one place each, whatever parts share it.
        given: what a chunk is made of, by name; the engines know the noise as `noisy_actions`.
        n_steps: of the flow.
        device: offset of each value.
        host: offset of what is given, and of `actions`.
        times: offset on the GPU of the time of the first step; the others follow.
        time_stride: bytes from one time to the next.
        device_bytes: of the GPU's block.
        host_bytes: of the host's.
    """

    values: dict[str, Value]
    given: tuple[Value, ...]
    n_steps: int
    device: dict[str, int]
    host: dict[str, int]
    times: int
    time_stride: int
    device_bytes: int
    host_bytes: int


def plan_buffers(manifest: Manifest) -> Plan:
    """Places for the largest batch.

    Raises:
        CheckpointError: the parts of the manifest do not fit each other, or its chunk.
    """
    values = _values(manifest)
    most, n_steps = manifest.batch.size, manifest.policy.n_steps
    device, end = _places(values.values(), most)
    outside = (*manifest.chunk.inputs, *manifest.chunk.outputs)
    host, host_bytes = _places(outside, most)
    stride = _aligned(n_bytes(values[TIME], most))
    return Plan(
        values=values, given=manifest.chunk.inputs, n_steps=n_steps, device=device, host=host,
        times=end, time_stride=stride, device_bytes=end + n_steps * stride, host_bytes=host_bytes,
    )  # fmt: skip


def engine_outputs(part: str, described: Part) -> tuple[Value, ...]:
    """What an engine gives: its graph's outputs, and that of the step the moved actions, too."""
    if part != DENOISE_STEP:
        return described.outputs
    velocity = next(value for value in described.outputs if value.name == VELOCITY)
    return (*described.outputs, Value(MOVED_ACTIONS, velocity.dtype, velocity.shape))


def shape_of(value: Value, n_rows: int) -> tuple[int, ...]:
    """With so many rows in an open batch."""
    return tuple(n_rows if size is None else size for size in value.shape)


def n_bytes(value: Value, n_rows: int) -> int:
    """Of a value with so many rows in an open batch."""
    return math.prod(shape_of(value, n_rows)) * np.dtype(value.dtype).itemsize


def _values(manifest: Manifest) -> dict[str, Value]:
    """All that engines take and give, each taken only once it is there."""
    given = [_renamed(value, NOISE, NOISY_ACTIONS) for value in manifest.chunk.inputs]
    found = {value.name: value for value in given}
    for part in PARTS:
        described = manifest.parts[part]
        for value in described.inputs:
            if part == DENOISE_STEP and value.name == TIME:
                found[TIME] = value
            elif found.get(value.name) != value:
                raise _misfit(f"{part} takes {value}, and before it there is", found, value.name)
        for value in engine_outputs(part, described):
            if value.name in found:
                raise _misfit(f"{part} gives {value}, and before it there is", found, value.name)
            found[value.name] = value
    _check_flow(manifest, found)
    return found


def _check_flow(manifest: Manifest, found: dict[str, Value]) -> None:
    """Check that the loop over the steps of the flow can be closed."""
    actions = found[MOVED_ACTIONS]
    wanted = {
        NOISY_ACTIONS: Value(NOISY_ACTIONS, "float32", actions.shape),
        MOVED_ACTIONS: Value(MOVED_ACTIONS, "float32", actions.shape),
        TIME: Value(TIME, "float32", actions.shape[:1]),
    }
    for name, value in wanted.items():
        if found.get(name) != value:
            raise _misfit(f"{value} is needed, and there is", found, name)
    if manifest.chunk.outputs != (Value(ACTIONS, "float32", actions.shape),):
        raise CheckpointError(
            f"the parts of the bundle do not fit: its chunk gives {manifest.chunk.outputs}, its "
            f"step moves {actions}. {EXPORT_AGAIN}"
        )


def _misfit(what: str, found: dict[str, Value], name: str) -> CheckpointError:
    other = found.get(name, "nothing of that name")
    return CheckpointError(f"the parts of the bundle do not fit: {what} {other}. {EXPORT_AGAIN}")


def _renamed(value: Value, old: str, new: str) -> Value:
    return Value(new, value.dtype, value.shape) if value.name == old else value


def _places(values: Iterable[Value], most: int) -> tuple[dict[str, int], int]:
    """The offset of each by name, and their bytes together."""
    places: dict[str, int] = {}
    end = 0
    for value in values:
        places[value.name] = end
        end += _aligned(n_bytes(value, most))
    return places, end


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
