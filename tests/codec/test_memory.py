"""Coding one matrix takes no more than four times its float32 size of memory beside it.

Where moments of its outputs are known, they count, too: twice what they take themselves.
"""

import os
import subprocess
import sys

import pytest

MEASURE = """
import sys
import torch
from einsort_vla.codec import Curve, Hessian, Scalar, encode
torch.set_num_threads(1)
spec, fed = eval(sys.argv[1]), sys.argv[2] != "plain"
encode(torch.randn(64, 64), spec, Hessian(torch.eye(64)) if fed else None)  # libraries are loaded
weight, hessian = torch.randn(4096, 1024), None
if fed:
    hessian = Hessian(torch.eye(1024), torch.eye(4096) if sys.argv[2] == "both" else None)

def status(key):
    line = next(line for line in open("/proc/self/status") if line.startswith(key))
    return 1024 * int(line.split()[1])

open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew: compiling took more
before = status("VmRSS")
encode(weight, spec, hessian)
print((status("VmHWM") - before) / (4 * weight.numel()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("spec", "mode"),
    [
        ("Curve(2.0)", "plain"),
        ("Curve(2.0, rotated=True)", "fed"),
        ("Curve(2.0, rotated=True)", "both"),
        ("Curve(8.0, 8)", "plain"),
        ("Scalar(8, 128)", "plain"),
    ],
)
def test_peak_of_one_matrix(spec, mode):
    command = [sys.executable, "-c", MEASURE, spec, mode]
    # Freed memory goes back at once: the peak is then that of what is alive.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert float(result.stdout) < (4 if mode != "both" else 4 + 2 * 4)
