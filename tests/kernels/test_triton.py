"""The Triton backend without a GPU: in the interpreter, and compiled ahead of time."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from einsort_vla.codec import Leader, encode
from einsort_vla.errors import MissingDependency
from einsort_vla.kernels import BackendChoice, make_backend
from einsort_vla.kernels.cuda import backend as cuda_backend
from einsort_vla.kernels.triton import backend, ops

CAPABILITIES = [80, 86, 87, 89, 90, 110, 120]
kernel = ops.kernels()
TYPES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}


def test_in_the_interpreter():
    inner = Path(__file__).with_name("interpreted_triton.py")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", str(inner), "-p", "no:cacheprovider", "--show-capture=no"],
        env={**os.environ, "TRITON_INTERPRET": "1"}, cwd=Path(__file__).parents[2],
        capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-4000:]


def compiled(function, capability, dtype, window=(2, 3, 5)):
    """As `ops.matmul_leader` launches it, for one row, from streams and x that are aligned."""
    d, b, s = window
    block_m, block_n, block_k = ops.blocks(1)
    constants = {
        "D": d, "B": b, "S": s, "ONE_WORD": True, "WIDE": False, "HAS_BIAS": True, "IS_WHOLE": True,
        "BLOCK_M": block_m, "BLOCK_J": block_n // d, "BLOCK_K": block_k,
    }  # fmt: skip
    types = {
        "x": f"*{TYPES[dtype]}", "signs": "*i32", "indices": "*i32", "table": "*fp32",
        "scale": "*fp16", "bias": f"*{TYPES[dtype]}", "y": f"*{TYPES[dtype]}",
        "weight": f"*{TYPES[dtype]}", **dict.fromkeys(("M", "N", "K", "per_split"), "i32"),
    }  # fmt: skip
    names = function.arg_names
    constants = {name: value for name, value in constants.items() if name in names}
    signature = {name: types.get(name, "constexpr") for name in names}
    aligned = {
        (i,): [["tt.divisibility", 16]] for i, t in enumerate(signature.values()) if "*" in t
    }
    return triton.compile(
        ASTSource(function, signature, constants, aligned),
        target=GPUTarget("cuda", capability, 32),
    )  # fmt: skip


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_the_kernels_compile_for_every_gpu(capability):
    for function in (kernel.matvec_leader, kernel.decode_leader):
        assert compiled(function, capability, torch.bfloat16).asm["cubin"]


@pytest.mark.parametrize("window", [(1, 14, 0), (8, 1, 7)])
def test_streams_are_read_by_words(window):
    """A word's bytes are swapped by one instruction, and two words are joined by one."""
    ptx = compiled(kernel.matvec_leader, 80, torch.float32, window).asm["ptx"]
    assert "prmt.b32" in ptx
    assert "shf.l.wrap.b32" in ptx


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_layer_is_not_made():
    compressed = encode(torch.randn(8, 8), Leader(2, 2, 6))
    with pytest.raises(MissingDependency, match="--backend triton: there is no CUDA device"):
        make_backend(BackendChoice("triton"), compressed)


@pytest.fixture
def asked_anew():
    for module in (backend, cuda_backend):
        module.why_unavailable.cache_clear()
    yield
    for module in (backend, cuda_backend):
        module.why_unavailable.cache_clear()


@pytest.mark.usefixtures("asked_anew")
def test_an_older_gpu_is_named_also_where_it_is_not_the_current_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", [(9, 0), (7, 5)].__getitem__)
    monkeypatch.setattr(torch.cuda, "get_device_name", ["H100", "Tesla T4"].__getitem__)
    for module in (backend, cuda_backend):
        assert "Tesla T4 (cuda:1) has 7.5" in str(module.why_unavailable())


@pytest.mark.usefixtures("asked_anew")
@pytest.mark.parametrize("module", ["triton", "triton.knobs"])
def test_no_triton_or_an_old_one_is_a_reason(module, monkeypatch):
    monkeypatch.delattr(triton, "knobs")
    monkeypatch.setitem(sys.modules, module, None)
    assert "Triton 3.4 or newer is needed" in str(backend.why_unavailable())


def test_kernels_are_launched_on_the_gpu_of_the_input(monkeypatch):
    current, launched = [None], []

    @contextmanager
    def device_of(x):
        current.append(x)
        yield
        current.pop()

    class Kernel:
        def __init__(self, name):
            self.name = name

        def __getitem__(self, grid):
            return lambda *_, **__: launched.append((self.name, current[-1]))

    names = ("matvec_leader", "reduce_leader", "decode_leader")
    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    stand_in = SimpleNamespace(**{name: Kernel(name) for name in names})
    monkeypatch.setattr(ops, "kernels", lambda: stand_in)
    word, scale = torch.zeros(9, dtype=torch.int32), torch.ones(8)
    few, many = torch.zeros(3, 640), torch.zeros(32, 640)
    for x in (few, many):  # the former in several parts
        ops.matmul_leader(x, word, word, word, scale, None, 2, 2, 6)
    assert [name for name, _ in launched] == list(names)
    assert [id(x) for _, x in launched] == [id(few), id(few), id(many)]
