"""ONNX Runtime's products on a CPU, which ours stand beside: float32, and blocks of 4 or 2 bits."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

BLOCK = 32  # weights that share a scale
INT8_ACTIVATIONS = 4  # ONNX Runtime's accuracy level
OPSET, DOMAIN, IR_VERSION = 17, "com.microsoft", 10


class OnnxPeer:
    """One product y = x W^T with random weights, (out_features, in_features)."""

    def __init__(self, shape: tuple[int, int], bits: int, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Of many sessions, idle ones would keep all cores busy with waiting.
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(threads == 1)))
        self.name = f"ORT {bits} bits" if bits < 32 else "ORT fp32"
        self._session = onnxruntime.InferenceSession(
            _model(shape, bits), options, providers=["CPUExecutionProvider"]
        )

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """(n, in_features) to (n, out_features); there is no bias."""
        assert bias is None
        return torch.from_numpy(self._session.run(None, {"x": x.numpy()})[0])


def bytes_of(shape: tuple[int, int], bits: int) -> int:
    """What its weights take."""
    n = shape[0] * shape[1]
    return n * bits // 8 + (4 * n // BLOCK if bits < 32 else 0)


def _model(shape: tuple[int, int], bits: int) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    rows, columns = shape
    generator = np.random.default_rng(0)
    inputs: dict[str, Any] = {}
    kind, domain, attributes = "MatMul", "", dict[str, Any]()
    if bits == 32:
        inputs["w"] = generator.standard_normal((columns, rows), dtype=np.float32)
    else:
        size = (rows, columns // BLOCK, BLOCK * bits // 8)
        inputs["w"] = generator.integers(0, 256, size, dtype=np.uint8)
        inputs["scale"] = generator.random(rows * columns // BLOCK, dtype=np.float32)
        kind, domain = "MatMulNBits", DOMAIN
        attributes = {"K": columns, "N": rows, "bits": bits, "block_size": BLOCK,
                      "accuracy_level": INT8_ACTIVATIONS}  # fmt: skip
    make_node: Any = helper.make_node  # whose types do not know attributes that are numbers
    node = make_node(kind, ["x", *inputs], ["y"], domain=domain, **attributes)
    graph = helper.make_graph(
        [node], "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", columns])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", rows])],
        [numpy_helper.from_array(array, name) for name, array in inputs.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    return model.SerializeToString()
