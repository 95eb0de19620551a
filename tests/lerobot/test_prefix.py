"""Policies that sample from a compressed prefix: tiny ones of every family, and the shipped one."""

import pytest
import torch

pytest.importorskip("lerobot")

from einsort_vla.cache import EinSortCache
from einsort_vla.codec import Network
from einsort_vla.errors import UsageError
from einsort_vla.lerobot import action_chunks, action_error, load_policy, quiet_lerobot
from einsort_vla.lerobot.prefix import compressed_prefix
from tests.policies.tiny_policies import FAMILIES, act_once

RATES = (0.5, 0.75, 0.85)


def relative_error(found, expected):
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("family", ["pi0", "pi05"])
def test_pi_denoises_from_a_shared_coded_prefix(family, tmp_path, monkeypatch):
    with quiet_lerobot(), FAMILIES[family](tmp_path) as build:
        torch.manual_seed(0)
        policy = build()
        for name, parameter in policy.named_parameters():
            if parameter.ndim == 2 and "language_model" in name:
                parameter.data *= 4  # so that the actions depend on the prefix
    expected = act_once(policy)
    copies = []
    share = EinSortCache.share

    def watched(own, is_exact):
        assert is_exact  # no step codes what it drops
        copies.append(own)
        return share(own, is_exact)

    monkeypatch.setattr(EinSortCache, "share", watched)
    errors = []
    for rate in RATES:
        copies.clear()
        with compressed_prefix(policy, "curve", rate) as watch:
            errors.append(relative_error(act_once(policy), expected))
        assert len(copies) == policy.config.num_inference_steps
        assert all(own is watch.cache for own in copies)
        assert watch.report.rate >= rate
        assert watch.report.exact_entries == 0  # no step has left anything in it
    assert 0 < errors[0] < 0.01
    assert errors[0] < errors[2]
    assert torch.equal(act_once(policy), expected)  # all is as before


def test_only_policies_with_a_prefix(tmp_path):
    with quiet_lerobot(), FAMILIES["act"](tmp_path) as build:
        policy = build()
    message = r"type 'act' keep no prefix; those of smolvla, pi0, pi05 do"
    with pytest.raises(UsageError, match=message), compressed_prefix(policy):
        pass


@pytest.fixture(scope="module")
def shipped(reference_policy):
    return load_policy(str(reference_policy))


@pytest.fixture(scope="module")
def observations(shipped):
    return shipped.made_up_observations(2)


def test_the_shipped_policy_acts_alike(shipped, observations):
    expected = action_chunks(shipped, observations)
    errors = []
    for rate in RATES:
        with compressed_prefix(shipped, "curve", rate) as watch:
            errors.append(action_error(action_chunks(shipped, observations), expected))
        assert watch.n_prefixes == len(observations)
        assert watch.report.rate >= rate
        assert watch.report.exact_entries == 0
        assert watch.cache.nbytes() == watch.report.bytes_stored
    assert 0 < errors[0] < 1e-3  # of the variance of the actions
    assert errors[0] < errors[1] < errors[2]
    with compressed_prefix(shipped, Network(1), 0.5) as watch:
        assert action_error(action_chunks(shipped, observations[:1]), expected[:1]) > errors[0]
    assert watch.report.core_kept_fraction <= 0.5
    assert (action_chunks(shipped, observations) == expected).all()


def test_bad_requests(shipped):
    with pytest.raises(UsageError, match="between 0 and"), compressed_prefix(shipped, rate=2):
        pass
    with compressed_prefix(shipped) as watch, pytest.raises(UsageError, match="act first"):
        _ = watch.report
    shipped.module.config.use_cache = False
    with pytest.raises(UsageError, match="use_cache"), compressed_prefix(shipped):
        pass
    shipped.module.config.use_cache = True
