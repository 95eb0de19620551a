"""Two nodes of Ray on this machine run the episodes that local workers run, action for action."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from einsort_vla.results.episode import read_episodes
from einsort_vla.results.run import LOG

ROOT = Path(__file__).parents[3]

pytestmark = [pytest.mark.sim, pytest.mark.slow]


@pytest.fixture
def cluster():
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    cluster = Cluster()
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=200_000_000, include_dashboard=False)
    yield cluster.address
    cluster.shutdown()


def run(output, *more):
    command = [sys.executable, str(ROOT / "eval" / "libero.py"), "--rate", "0.75", "--tasks", "1,4",
               "--workers", "2", "--output", str(output), *more]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=900)


def test_a_cluster_of_two_nodes_runs_the_same_episodes(cluster, tmp_path):
    result = run(tmp_path / "ray", "--ray", cluster)
    assert result.returncode == 0, result.stderr
    assert run(tmp_path / "local").returncode == 0
    there, here = (
        {record.key: record for record in read_episodes(tmp_path / name / LOG)}
        for name in ("ray", "local")
    )
    assert len(here) == 4
    assert there.keys() == here.keys()
    for key, record in here.items():
        assert record.outcome != "error", record.error
        assert there[key].actions_sha256 == record.actions_sha256
        assert there[key].divergence == record.divergence
    report = json.loads((tmp_path / "ray" / "report.json").read_text())
    assert report["complete"]


def test_no_cluster_is_an_error(tmp_path):
    result = run(tmp_path / "out", "--ray", "127.0.0.1:1")
    assert result.returncode == 2
    assert "no Ray cluster answers there" in result.stderr
