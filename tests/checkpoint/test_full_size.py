"""Policies of real size: little memory, a kill in the middle, the size that was announced."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from einsort_vla.checkpoint import file_sha256

TOOL = Path(__file__).parents[1] / "full_size.py"
FIRST_CHUNK = Path(__file__).parents[1] / "first_chunk.py"
FIRST_CHUNK_ROOM = 250e6  # activations, one decoded matrix, and one tensor while it is read
PROGRAM = Path(sys.executable).with_name("einsort-vla")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "rate", "limit"), [("smolvla", 0.75, 3e9), ("pi05", 0.8, 4e9)])
def test_compression_of_a_real_policy(tmp_path, kind, rate, limit):
    subprocess.run([sys.executable, TOOL, kind, tmp_path / "dense"], check=True)
    command = [PROGRAM, "compress", tmp_path / "dense", tmp_path / "new", "--rate", str(rate)]

    process = subprocess.Popen(command)
    journal = tmp_path / "new.partial" / "journal"
    while process.poll() is None and not (journal.is_file() and "weight_" in journal.read_text()):
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "new").exists()

    assert _peak_bytes(command) <= limit
    straight = [*command[:3], tmp_path / "straight", *command[4:]]
    subprocess.run(straight, check=True)
    digests = [file_sha256(tmp_path / d / "model.safetensors") for d in ("new", "straight")]
    assert digests[0] == digests[1]

    shown = subprocess.run(
        [PROGRAM, "inspect", tmp_path / "new", "--json"], capture_output=True, check=True
    )
    content = json.loads(shown.stdout)
    assert content["rate"] >= rate
    announced = content["coded_bytes"] + content["dense_remainder_bytes"]
    stored = (tmp_path / "new" / "model.safetensors").stat().st_size
    assert abs(stored / announced - 1) < 0.01
    subprocess.run([PROGRAM, "verify", tmp_path / "new", "--against", tmp_path / "dense"],
                   check=True)  # fmt: skip
    if kind == "smolvla":
        _check_first_chunk(tmp_path / "new", stored)


def _check_first_chunk(folder, size):
    """Beside what torch and LeRobot take to be imported, little more than the file itself."""
    command = [sys.executable, FIRST_CHUNK, folder, "reference"]
    result = subprocess.run(command, capture_output=True, check=True)
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["finite"]
    assert found["peak"] - found["imports"] < size + FIRST_CHUNK_ROOM


def _peak_bytes(command) -> int:
    """Most memory that a command held, from its own kernel record."""
    process = psutil.Popen(command)
    peak = 0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = max(peak, int(status.split("VmHWM:")[1].split()[0]) * 1024)
        except (OSError, IndexError):
            break
        time.sleep(0.2)
    assert process.wait() == 0
    return peak
