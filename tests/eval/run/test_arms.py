"""Which compressed policies are the dense one, and need not be run."""

import numpy as np
from rich.console import Console

from einsort_vla.checkpoint import DenseFolder
from einsort_vla.lerobot import action_chunks, load_policy
from eval.run.copies import describe_arms, list_arms, make_copies, plan_copies
from eval.run.settings import RunSettings


def test_only_exact_codes_multiplied_as_dense_share_episodes(reference_policy, tmp_path):
    dense = DenseFolder(reference_policy)
    for backend, exact in (("decoded", ["curve 0.3"]), ("reference", [])):
        copies = plan_copies(dense, RunSettings(rate="0,0.3,0.5"))
        arms = list_arms(dense, copies, tmp_path, backend=backend)
        assert [arm.name for arm in arms if arm.is_exact] == exact


def test_an_exact_policy_answers_as_the_dense_one_does(reference_policy, tmp_path):
    dense, console = DenseFolder(reference_policy), Console(quiet=True)
    make_copies(dense, plan_copies(dense, RunSettings(rate="0.3")), tmp_path, None, console)
    policy = load_policy(str(reference_policy))
    seen = policy.made_up_observations(2)
    made = load_policy(str(tmp_path / "curve-0.3"))
    assert np.array_equal(action_chunks(policy, seen), action_chunks(made, seen))


def test_a_dense_folder_named_like_a_copy_stays_dense(tiny_policy_folder, tmp_path):
    dense = DenseFolder(tiny_policy_folder.rename(tmp_path / "curve-0.5"))
    copies = plan_copies(dense, RunSettings(rate="0.5"))
    facts = describe_arms(copies, list_arms(dense, copies, tmp_path / "copies"))
    assert [(arm.codec, arm.rate_requested) for arm in facts] == [(None, 0.0), ("curve", 0.5)]
