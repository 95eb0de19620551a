"""Builds one engine: reads a job as JSON from its input, prints what it built as JSON.

It is a process of its own, because a fault in a builder or a plugin ends the process.
"""

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from einsort_vla.runtime.flow import MOVED_ACTIONS
from einsort_vla.runtime.manifest import NOISY_ACTIONS, VELOCITY

PLUGIN = ("MatmulCurve", "1", "einsort")
# TensorRT-RTX refuses plugins before 1.7.
VERSIONS = {"tensorrt": ((10, 3), (11, 99)), "tensorrt_rtx": ((1, 7), (1, 99))}


def main() -> None:
    """Read, build, print; exit code 1 with a message if it cannot be built."""
    job = json.load(sys.stdin)
    trt = importlib.import_module(job["builder"])
    _check_version(trt, job["builder"])
    logger = trt.Logger(trt.Logger.WARNING)  # goes to the error output
    started = time.monotonic()
    _load_plugin(trt, job["plugin"])
    builder = trt.Builder(logger)
    network = builder.create_network(_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(job["graph"]):
        sys.exit("; ".join(parser.get_error(k).desc() for k in range(parser.num_errors)))
    held = add_move(trt, network, job["n_steps"]) if job["n_steps"] is not None else None
    config = builder.create_builder_config()
    if job["batch"] is not None:
        config.add_optimization_profile(_profile(builder, network, job["batch"]))
    if job["builder"] == "tensorrt_rtx":
        config.num_compute_capabilities = 1
        name = f"SM{job['compute_capability']}"
        config.set_compute_capability(getattr(trt.ComputeCapability, name), 0)
    layers = [network.get_layer(k) for k in range(network.num_layers)]
    described = [(layer.name, layer.type.name) for layer in layers]
    engine = builder.build_serialized_network(network, config)
    del held
    if engine is None:
        sys.exit("the engine could not be built; see the messages above")
    Path(job["out"]).write_bytes(engine)
    json.dump(_found(described, time.monotonic() - started), sys.stdout)
    print()


def _check_version(trt: Any, name: str) -> None:
    version = tuple(int(number) for number in trt.__version__.split(".")[:2])
    oldest, newest = VERSIONS[name]
    if not oldest <= version <= newest:
        sys.exit(
            f"{name} {trt.__version__} is not supported; {oldest[0]}.{oldest[1]} to "
            f"{newest[0]}.x are."
        )


def _load_plugin(trt: Any, path: str) -> None:
    registry = trt.get_plugin_registry()
    registry.load_library(path)
    if registry.get_creator(*PLUGIN) is None:
        sys.exit(f"{path} could not be loaded as a plugin: another ABI, or not the library")


def _flags(trt: Any) -> int:
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if typed is None else 1 << int(typed)  # TensorRT 11 has no other kind


def add_move(trt: Any, network: Any, n_steps: int) -> np.ndarray:
    """Let the engine of a step give the noisy actions of the next one, too: Euler's method.

    In an engine it needs neither a kernel of its own nor a way over the host.

    Returns:
        What the network refers to until it is built.
    """
    tensors = [network.get_input(k) for k in range(network.num_inputs)]
    tensors += [network.get_output(k) for k in range(network.num_outputs)]
    named = {tensor.name: tensor for tensor in tensors}
    if lacking := {NOISY_ACTIONS, VELOCITY} - named.keys():
        sys.exit(f"the graph has no {' and no '.join(sorted(lacking))}")
    time_step = np.full((1, 1, 1), -1 / n_steps, np.float32)
    constant = network.add_constant(time_step.shape, time_step).get_output(0)
    operation = trt.ElementWiseOperation
    move = network.add_elementwise(named[VELOCITY], constant, operation.PROD).get_output(0)
    moved = network.add_elementwise(named[NOISY_ACTIONS], move, operation.SUM).get_output(0)
    moved.name = MOVED_ACTIONS
    network.mark_output(moved)
    return time_step


def _profile(builder: Any, network: Any, most: int) -> Any:
    """Any batch from 1 to `most`, wherever an input has an open axis."""
    profile = builder.create_optimization_profile()
    for k in range(network.num_inputs):
        given = network.get_input(k)
        low, high = (tuple(n if d < 0 else d for d in given.shape) for n in (1, most))
        profile.set_shape(given.name, low, high, high)
    return profile


def _found(layers: list[tuple[str, str]], seconds: float) -> dict[str, Any]:
    counts: dict[str, int] = {}
    for _, kind in layers:
        counts[kind] = counts.get(kind, 0) + 1
    plugins = [name for name, kind in layers if kind == "PLUGIN_V3"]
    return {"seconds": round(seconds, 2), "layers": counts, "plugin_layers": plugins}


if __name__ == "__main__":
    main()
