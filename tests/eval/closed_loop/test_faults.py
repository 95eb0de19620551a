"""kill -9 of the driver, of workers and of the policy server, at random moments.

No episode is lost or counted twice, and every one ends as it does undisturbed, action for action,
with one worker or with two.
"""

import contextlib
import json
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from einsort_vla.results.episode import read_episodes
from einsort_vla.results.run import LOG

ROOT = Path(__file__).parents[3]
N_KILLS, WAIT_S = 20, (8.0, 40.0)

pytestmark = [pytest.mark.sim, pytest.mark.slow]


def command(output, workers, *more):
    script = str(ROOT / "eval" / "libero.py")
    return [sys.executable, script, "--rate", "0.75", "--tasks", "1,4", "--episodes", "2",
            "--workers", str(workers), "--output", str(output), *more]  # fmt: skip


def victims(driver):
    """Its processes by what they are; one that listens is a server."""
    found = {"driver": [driver], "worker": [], "server": []}
    for child in psutil.Process(driver).children():
        if "spawn_main" not in " ".join(child.cmdline()):
            continue
        listens = any(
            c.laddr and "policies-" in str(c.laddr) for c in child.net_connections("unix")
        )
        found["server" if listens else "worker"].append(child.pid)
    return {kind: pids for kind, pids in found.items() if pids}


def whole_lines(log):
    """Of a log; a kill may cut a line short."""
    for line in log.read_text().splitlines():
        with contextlib.suppress(ValueError):
            yield json.loads(line)


def run_with_kills(output, rng, counts):
    """One whole run under kills; the driver is started again with --resume."""
    resume = []
    while True:
        driver = subprocess.Popen(command(output, 2, *resume), stdout=subprocess.DEVNULL)
        while driver.poll() is None:
            try:
                driver.wait(rng.uniform(*WAIT_S))
                break
            except subprocess.TimeoutExpired:
                pass
            if sum(counts.values()) >= N_KILLS:
                continue
            try:
                there = victims(driver.pid)
                kind = rng.choice(sorted(there))
                psutil.Process(rng.choice(there[kind])).kill()
                counts[kind] += 1
            except psutil.NoSuchProcess:
                continue
        if driver.returncode == 0:
            return
        assert driver.returncode in (-9, 1)
        resume = ["--resume"] if (output / "run.json").exists() else []


def test_nothing_is_lost_or_counted_twice(tmp_path):
    assert subprocess.run(command(tmp_path / "calm", 1)).returncode == 0
    calm = {record.key: record for record in read_episodes(tmp_path / "calm" / LOG)}
    rng, counts, n_runs = random.Random(0), Counter(), 0
    while sum(counts.values()) < N_KILLS:
        output = tmp_path / f"killed-{n_runs}"
        run_with_kills(output, rng, counts)
        n_runs += 1
        ended = Counter(
            (line["scene"]["task_id"], line["scene"]["episode"], line["arm"])
            for line in whole_lines(output / LOG)
            if line["outcome"] != "error"
        )
        assert len(ended) == len(calm)
        assert set(ended.values()) == {1}
        for record in read_episodes(output / LOG):
            assert record.actions_sha256 == calm[record.key].actions_sha256
            assert record.outcome == calm[record.key].outcome
    print(f"{dict(counts)} killed in {n_runs} runs, {time.ctime()}")
