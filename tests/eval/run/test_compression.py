"""Which compressed policies are the dense one, and need not be run."""

import numpy as np
import pytest
from rich.console import Console

from einsort_vla.checkpoint import DenseFolder
from einsort_vla.lerobot import action_chunks, load_policy, made_up_observations
from eval.closed_loop.request import check_request
from eval.closed_loop.settings import ClosedLoopSettings
from eval.run.compression import list_arms, make_all, plan_all

pytestmark = pytest.mark.sim  # a request asks the benchmark for its scenes


def test_only_exact_codes_multiplied_as_dense_share_episodes(tmp_path):
    for backend, exact in (("dense", ["leader 0.3"]), ("reference", [])):
        request = check_request(ClosedLoopSettings(rate="0,0.3,0.5", backend=backend))
        arms = list_arms(request, plan_all(request, None, Console(quiet=True)), tmp_path)
        assert [arm.name for arm in arms if arm.is_exact] == exact


def test_an_exact_policy_answers_as_the_dense_one_does(tmp_path):
    request = check_request(ClosedLoopSettings(rate="0.3"))
    console = Console(quiet=True)
    make_all(request, plan_all(request, None, console), None, tmp_path, console)
    dense = load_policy(str(request.folder))
    features = DenseFolder(request.folder).config["input_features"]
    seen = made_up_observations(features, dense.statistics, 2)
    made = load_policy(str(tmp_path / "leader-0.3"))
    assert np.array_equal(action_chunks(dense, seen), action_chunks(made, seen))
