"""The library that wheels carry: what it needs, and that it has the same bits."""

import platform
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from einsort_vla import native_flags as flags
from einsort_vla.codec import Curve
from einsort_vla.kernels import make_backend
from einsort_vla.native_library import HERE
from tests.kernels.test_native import CPU, random_parts, write_files

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.mark.skipif(sys.platform != "linux", reason="of manylinux wheels")
@pytest.mark.parametrize("machine", sorted(flags.LEVELS))
def test_a_shipped_library_needs_a_c_library_and_has_the_same_bits(machine, tmp_path):
    is_here = machine == platform.machine()
    cross, emulator = ("", []) if is_here else (f"{machine}-linux-gnu-", [f"qemu-{machine}-static"])
    if not is_here and not (shutil.which(f"{cross}g++") and shutil.which(emulator[0])):
        pytest.skip(f"no compiler or emulator for {machine}")
    made = tmp_path / flags.SHIPPED
    compile_library = runpy.run_path(str(ROOT / "hatch_build.py"))["compile_library"]
    compile_library(HERE, machine, runpy.run_path(str(flags.__file__)), made)

    told = subprocess.run(["readelf", "-dW", "-V", made], capture_output=True, text=True).stdout
    assert {n.split(".")[0] for n in re.findall(r"NEEDED.*\[(.*)\]", told)} <= {
        "libm", "libc", "ld-linux-x86-64", "ld-linux-aarch64",
    }  # fmt: skip
    versions = [int(minor) for minor in re.findall(r"GLIBC_2\.(\d+)", told)]
    assert max(versions) <= 18
    symbols = subprocess.run(["readelf", "--dyn-syms", made], capture_output=True, text=True).stdout
    assert " RegisterCustomOps" in symbols  # for ONNX Runtime

    compressed, generator = random_parts(Curve(1.625, rotated=True), (200, 240))
    x = torch.randn(5, 240, generator=generator)
    names = write_files(tmp_path, compressed, x)
    example = HERE / "example.c"
    subprocess.run([f"{cross}gcc", "-O2", example, made, "-o", tmp_path / "example",
                    f"-Wl,-rpath,{tmp_path}"], check=True)  # fmt: skip
    root = [] if is_here else ["-L", f"/usr/{machine}-linux-gnu"]
    subprocess.run([*emulator, *root, str(tmp_path / "example"), *names, "16"], check=True)
    found = torch.frombuffer((tmp_path / "y.bin").read_bytes(), dtype=torch.float32).view(5, -1)
    assert torch.equal(found, make_backend(CPU, compressed).linear(x, None))
