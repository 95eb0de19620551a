"""The EinSort KV cache by itself: bits, memory, blocks, and what beams do to it."""

import subprocess
import sys
from itertools import pairwise

import pytest
import torch

pytest.importorskip("transformers")

from hypothesis import given, settings
from hypothesis import strategies as st

from einsort_vla.cache import EinSortCache
from einsort_vla.cache.choice import cache_codec, choose
from einsort_vla.codec import Curve, Network
from einsort_vla.errors import NumericsError, ShapeError, UsageError
from tests.caching import error, filled, states

CODECS = [
    "curve",
    "scalar",
    "network",
    "curve window=12",
    "scalar group=32 grid=symmetric",
]


@settings(max_examples=20, deadline=None)
@given(
    codec=st.sampled_from(CODECS),
    heads=st.integers(1, 3),
    tokens=st.integers(1, 70),
    dim=st.sampled_from([8, 12, 16]),
    rate=st.sampled_from([0.2, 0.4, 0.6]),
)
def test_what_is_reported_is_what_lies_in_memory(codec, heads, tokens, dim, rate):
    cache = filled(codec, rate, heads=heads, tokens=tokens, dim=dim, batch=2)
    report = cache.report()
    assert report.bytes_stored == cache.nbytes()
    assert report.coded_entries + report.exact_entries == 2 * 2 * heads * tokens * dim
    if report.exact_entries:
        assert tokens < 24  # then scales, orders or a single rank take too large a share
        assert report.coded_entries == 0
        assert torch.equal(cache.layers[0].keys, states(2, heads, tokens, dim)[0])
        return
    assert sum(report.bits_by_part.values()) == pytest.approx(report.bits_per_entry)
    if codec == "network":
        assert report.core_kept_fraction <= 1 - rate
        assert report.rate < 1 - report.core_kept_fraction  # signs and order are counted
        assert {"order", "signs"} <= report.bits_by_part.keys()
    else:
        assert report.rate >= rate - 1e-12  # of 2304 in 2880 bytes, floats make 0.19999999999999996


@pytest.mark.parametrize("codec", ["curve", "scalar"])
def test_errors_fall_with_the_rate(codec):
    keys, values = states(tokens=128, dim=64)
    errors = []
    for rate in (0.85, 0.75, 0.65, 0.5):
        layer = filled(codec, rate, tokens=128, dim=64).layers[0]
        errors.append((error(layer.keys, keys), error(layer.values, values)))
    for earlier, later in pairwise(errors):
        assert later[0] < earlier[0]
        assert later[1] < earlier[1]
    # Of 4 bits, everything counted: the bound of a Gaussian is 4^-4, a code is some 2.5 dB off.
    assert errors[1][1] < {"curve": 0.013, "scalar": 0.06}[codec]


def test_the_codes_chosen_never_exceed_the_rate():
    for tokens in (1, 7, 15, 16, 17, 40, 64, 257):
        for rate in (0.3, 0.5, 0.75, 0.8):
            size = (2, tokens, 32)
            try:
                pair = choose(cache_codec("curve"), rate, size)
            except UsageError:
                assert tokens < 16
                continue
            assert sum(code.n_bits(size) for code in pair) <= (1 - rate) * 16 * 2 * 2 * tokens * 32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_prefill_sees_exact_states_and_types_are_kept(dtype):
    keys, values = (s.to(dtype) for s in states())
    cache = EinSortCache("curve", 0.75)
    found = cache.update(keys, values, 0)
    assert torch.equal(found[0], keys)
    assert torch.equal(found[1], values)
    later = [s[:, :, :1].to(dtype) for s in states(seed=1)]
    found = cache.update(*later, 0)
    for own, exact, new in zip(found, (keys, values), later, strict=True):
        assert own.dtype == dtype
        assert own.device == exact.device
        assert torch.equal(own[:, :, 64:], new)
        assert 0 < error(own[:, :, :64].float(), exact.float()) < 0.02


def test_blocks_are_coded_once_there_are_as_many_newer_tokens():
    cache = filled(block=16)
    layer = cache.layers[0]
    for k in range(40):
        new = [s[:, :, :1] for s in states(seed=k)]
        keys, _ = cache.update(*new, 0)
        assert torch.equal(keys[:, :, -1:], new[0])
        assert keys.shape[2] == cache.get_seq_length() == 65 + k
        assert layer.recent_keys.shape[2] == (k + 1 if k < 31 else 16 + (k - 31) % 16)
    assert [block.n_tokens for block in layer.blocks] == [64, 16]
    assert cache.report().bytes_stored == cache.nbytes()
    assert layer.keys.shape == (1, 2, 104, 16)


def test_every_chunk_of_a_prompt_is_coded():
    cache, (keys, values) = EinSortCache("curve", 0.75), states(batch=2, tokens=140)
    ends = [0, 60, 63, 100, 140]  # three tokens alone are too few, and wait for the next chunk
    for start, end in pairwise(ends):
        new = keys[:, :, start:end], values[:, :, start:end]
        assert torch.equal(cache.update(*new, 0)[0][:, :, start:], new[0])
    layer = cache.layers[0]
    assert [block.n_tokens for block in layer.blocks] == [60, 40, 40]
    assert cache.report().exact_entries == 0
    assert cache.report().bytes_stored == cache.nbytes()
    assert error(layer.keys, keys) < 0.02
    before = layer.keys
    cache.reorder_cache(torch.tensor([1, 0]))
    cache.crop(70)
    assert torch.equal(layer.keys, before[[1, 0], :, :70])


def test_a_block_too_small_for_a_code_waits_for_its_least_multiple():
    cache = filled(rate=0.8, block=2)
    for k in range(90):
        cache.update(*[s[:, :, :1] for s in states(seed=k)], 0)
    first, *later = (block.n_tokens for block in cache.layers[0].blocks)
    assert first == 64
    assert len(set(later)) == 1
    assert 2 < later[0] < 30
    assert cache.layers[0].recent_keys.shape[2] < 2 * later[0]
    assert cache.report().bytes_stored == cache.nbytes()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("ends", [(4e4, -4e4), (65504.0, -65504.0), (1e6, 1.0), (1e-9, 1e-9)])
def test_states_beyond_the_range_of_scales_stay_exact_or_are_finite(codec, ends):
    keys, values = states(heads=2, tokens=40, dim=16)
    if ends[0] < 1:
        keys *= 1e-9
    keys[0, 1, 7, 3], keys[0, 1, 8, 3] = ends
    cache = EinSortCache(codec, 0.5)
    cache.update(keys, values, 0)
    found = cache.layers[0].keys
    assert found.isfinite().all()
    assert error(found, keys) < 1
    report = cache.report()
    assert report.bytes_stored == cache.nbytes()
    assert torch.equal(found, keys) == (report.coded_entries == 0)


def test_a_channel_of_next_to_nothing_does_not_keep_a_block_from_its_code():
    keys, values = states()
    keys[..., 5] *= 1e-9
    values[:, 0] = 0
    cache = EinSortCache("curve", 0.5)
    cache.update(keys, values, 0)
    assert cache.report().exact_entries == 0
    assert error(cache.layers[0].keys, keys) < 1e-3


def test_a_crop_keeps_the_first_tokens_wherever_it_cuts():
    for left in (70, 64, 50, 3, 1, -14):
        cache = filled(block=8)
        cache.update(*[s[:, :, :10] for s in states(seed=3)], 0)
        before = cache.layers[0].keys
        n = left if left > 0 else 74 + left
        cache.crop(left)
        assert cache.get_seq_length() == n
        assert torch.equal(cache.layers[0].keys, before[:, :, :n])
        assert cache.report().bytes_stored == cache.nbytes()
        new = [s[:, :, :2] for s in states(seed=4)]
        assert torch.equal(cache.update(*new, 0)[0], torch.cat([before[:, :, :n], new[0]], 2))
    cache.crop(1000)
    assert cache.get_seq_length() == n + 2
    cache.crop(0)
    assert cache.get_seq_length() == cache.nbytes() == 0


def test_a_reset_cache_begins_anew():
    cache = filled(batch=2)
    cache.reset()
    assert cache.get_seq_length() == cache.nbytes() == 0
    cache.update(*states(batch=1, seed=5), 0)
    assert torch.equal(cache.layers[0].keys, filled(seed=5).layers[0].keys)


def test_sequences_of_a_batch_are_coded_apart():
    both, second = filled(batch=2), EinSortCache("curve", 0.75)
    second.update(*[s[1:] for s in states(batch=2)], 0)
    assert torch.equal(both.layers[0].keys[1:], second.layers[0].keys)


def test_batches_are_repeated_selected_and_reordered():
    cache = filled(batch=3)
    cache.update(*[s[:, :, :2] for s in states(batch=3, seed=1)], 0)
    before, n_bytes = cache.layers[0].keys, cache.nbytes()
    cache.batch_repeat_interleave(2)
    assert torch.equal(cache.layers[0].keys, before.repeat_interleave(2, 0))
    recent = 3 * 2 * 2 * 2 * 16 * 4
    assert cache.nbytes() == cache.report().bytes_stored == n_bytes + recent  # codes are shared
    cache.reorder_cache(torch.tensor([5, 0, 1, 1, 2, 4]))
    order = torch.tensor([2, 0, 0, 0, 1, 2])
    assert torch.equal(cache.layers[0].keys, before[order])
    cache.batch_select_indices(torch.tensor([True, False, False, False, False, True]))
    assert torch.equal(cache.layers[0].keys, before[[2, 2]])


def test_a_shared_copy_goes_its_own_way():
    cache = filled()
    copy = cache.share()
    copy.update(*[s[:, :, :3] for s in states(seed=1)], 0)
    assert (cache.get_seq_length(), copy.get_seq_length()) == (64, 67)
    exact = cache.share(is_exact=True)
    exact.update(*states(tokens=40, seed=1), 0)
    assert exact.report().exact_entries == 2 * 2 * 40 * 16
    own = {id(part) for states in cache.layers[0].blocks[0].keys for part in states.parts.values()}
    assert own == {id(p) for s in copy.layers[0].blocks[0].keys for p in s.parts.values()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("curv",), "Did you mean 'curve'"),
        (("local",), "codec of a cache"),
        (("curve", 0.99), "between 0 and 0.95"),
        (("curve", "0.5"), "between 0 and 0.95, not '0.5'"),
        ((None,), "a text such as 'curve', not None"),
        (("scalar groups=3",), "Did you mean 'group'"),
        (("network reduction=mean",), "as a spec"),
        ((Curve(2.0),), "name the form"),
        (("curve", 0.5, -1), "a block has 1 or more"),
    ],
)
def test_bad_caches(arguments, message):
    with pytest.raises(UsageError, match=message):
        EinSortCache(*arguments)


def test_bad_states():
    keys, values = states()
    with pytest.raises(UsageError, match=r"at least .* bits an entry for 1024 tokens"):
        filled("scalar", 0.9, tokens=2)  # in no number of tokens
    with pytest.raises(UsageError, match=r"svd network .* keeps at least"):
        filled(Network(1, decomposition="svd"), 0.95, tokens=2)
    keys[0, 0, 5, 3] = torch.nan
    with pytest.raises(NumericsError, match=r"layer 1: .*NaN"):
        EinSortCache().update(keys, values, 1)
    with pytest.raises(ShapeError, match="holds 2 sequences"):
        filled(batch=2).update(*states(batch=1), 0)
    with pytest.raises(UsageError, match="recurrent"):
        EinSortCache().update_conv_state(keys, 0)


MEMORY = """
import ctypes, torch
from einsort_vla.cache import EinSortCache
def resident():
    ctypes.CDLL(None).malloc_trim(0)
    return 4096 * int(open("/proc/self/statm").read().split()[1])
def fill(layers):
    cache = EinSortCache("scalar", 0.75)
    for layer in range(layers):
        states = torch.randn(1, 4, 1024, 128)
        cache.update(states, states.clone(), layer)
    return cache
torch.set_num_threads(1)
fill(1)  # what is loaded and allocated at the first use
before = resident()
cache = fill(12)
print(resident() - before, cache.nbytes(), cache.report().bytes_stored)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_process_grows_by_what_the_report_says():
    run = [sys.executable, "-c", MEMORY]
    out = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    grown, held, reported = (int(number) for number in out.split())
    assert held == reported
    assert grown == pytest.approx(held, rel=0.1)  # 6 MB; in float32 it would be 50
