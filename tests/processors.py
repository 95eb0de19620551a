"""Runs what depends on the processor as older ones would, and on one and two threads.

python tests/processors.py, or `make test-processors`. A level is set for every library that
chooses its instructions at run time; those that this machine lacks are left out and named.
"""

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
SENSITIVE = (
    "tests/codec", "tests/kernels/test_backends.py", "tests/export/test_onnxruntime.py",
    "tests/kernels/test_hadamard.py", "tests/kernels/test_native.py", "tests/layers",
    "tests/cache/test_cache.py", "tests/export/test_functions.py",
    "tests/checkpoint/test_golden.py",
)  # fmt: skip
SLOW = "tests/codec/test_memory.py", "tests/codec/test_theory.py"  # measure memory, and theorems
# Of torch, MKL, oneDNN and OpenBLAS; compiled kernels take the level's own name.
LEVELS = {
    "x86-64-v2": ("default", "SSE4_2", "SSE41", "Nehalem"),
    "x86-64-v3": ("avx2", "AVX2", "AVX2", "Haswell"),
    "x86-64-v4": ("avx512", "AVX512", "AVX512_CORE", "SkylakeX"),
}
VARIABLES = (
    "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA", "OPENBLAS_CORETYPE",
)  # fmt: skip
CAPABILITIES = ("DEFAULT", "AVX2", "AVX512")


def settings() -> dict[str, dict[str, str]]:
    """Environment variables of each run, by its name."""
    runs = {"this processor, 2 threads": {"OMP_NUM_THREADS": "2"}}
    if platform.machine() != "x86_64":
        return runs
    has = CAPABILITIES.index(torch.backends.cpu.get_cpu_capability())
    for k, (level, values) in enumerate(LEVELS.items()):
        if k > has:
            print(f"{level}: this processor lacks it")
            continue
        n_threads = "2" if level == "x86-64-v3" else "1"
        runs[f"{level}, {n_threads} thread(s)"] = {
            **dict(zip(VARIABLES, values, strict=True)),
            "EINSORT_MARCH": level,
            "OMP_NUM_THREADS": n_threads,
        }
    return runs


def main() -> int:
    failed = []
    for name, variables in settings().items():
        start = time.monotonic()
        command = [sys.executable, "-m", "pytest", "-m", "not slow", "-n", "2", *SENSITIVE]
        ignored = [f"--ignore={path}" for path in SLOW]
        environment = {**os.environ, "OMP_WAIT_POLICY": "passive", **variables}
        if subprocess.run([*command, *ignored], cwd=ROOT, env=environment).returncode:
            failed.append(name)
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
    print(f"failed: {'; '.join(failed)}" if failed else "every setting passed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
