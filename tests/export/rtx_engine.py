"""Builds a TensorRT-RTX engine of one MatmulCurve node; run as a process of its own.

Usage: rtx_engine.py PLUGIN FOLDER TYPE. Prints JSON. A bad plugin would end the whole process.
"""

import ctypes
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import tensorrt_rtx as trt
import tensorrt_rtx_libs
from onnx import TensorProto, helper, numpy_helper

N, K, EIGHTHS, WINDOW = 2048, 2048, 16, 13


def load_shim(folder: Path) -> None:
    """The parser opens libtensorrt_rtx.so, and the wheel has only libtensorrt_rtx.so.1."""
    shim, libraries = folder / "shim.so", Path(tensorrt_rtx_libs.__file__).parent
    command = ["gcc", "-shared", "-x", "c", "/dev/null", "-o", str(shim)]
    command += ["-Wl,-soname,libtensorrt_rtx.so", "-Wl,--no-as-needed", f"-L{libraries}"]
    subprocess.run([*command, "-l:libtensorrt_rtx.so.1"], check=True)
    ctypes.CDLL(str(shim), ctypes.RTLD_GLOBAL)


def model(kind: int) -> tuple[bytes, int]:
    """The ONNX file, and the bytes of its packed weights."""
    rng = np.random.default_rng(0)
    word, byte = np.iinfo(np.int32), np.iinfo(np.int8)
    packed = {
        "words": rng.integers(word.min, word.max, N * K * EIGHTHS // 256, dtype=np.int32),
        "scale": rng.integers(byte.min, byte.max, N, dtype=np.int8),
    }
    node = helper.make_node(
        "MatmulCurve", ["x", *packed], ["y"], domain="einsort", out_features=N, in_features=K,
        eighths=EIGHTHS, window=WINDOW, unit=0.75, plugin_namespace="einsort", plugin_version="1",
    )  # fmt: skip
    graph = helper.make_graph(
        [node],
        "one_layer",
        [helper.make_tensor_value_info("x", kind, ["batch", "tokens", K])],
        [helper.make_tensor_value_info("y", kind, ["batch", "tokens", N])],
        [numpy_helper.from_array(array, name) for name, array in packed.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("einsort", 1)]
    file = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    return file.SerializeToString(), sum(array.nbytes for array in packed.values())


def build(plugin: str, kind: int) -> dict[str, object]:
    trt.get_plugin_registry().load_library(plugin)
    builder = trt.Builder(trt.Logger(trt.Logger.WARNING))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, builder.logger)
    file, packed_bytes = model(kind)
    assert parser.parse(file), [parser.get_error(i).desc() for i in range(parser.num_errors)]
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    profile.set_shape("x", (0, 1, K), (1, 50, K), (2, 512, K))
    config.add_optimization_profile(profile)
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    engine = builder.build_serialized_network(network, config)
    return {
        "layers": [network.get_layer(i).type.name for i in range(network.num_layers)],
        "output": [network.get_output(0).dtype.name, list(network.get_output(0).shape)],
        "packed_bytes": packed_bytes,
        "engine_bytes": engine.nbytes,
    }


if __name__ == "__main__":
    load_shim(Path(sys.argv[2]))
    print(json.dumps(build(sys.argv[1], getattr(TensorProto, sys.argv[3]))))
