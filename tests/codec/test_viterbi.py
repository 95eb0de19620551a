"""The search against brute force, and the window against its definition."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from einsort_vla.codec import CompressedTensor, Leader, decode, encode
from einsort_vla.codec.packing import pack, unpack
from einsort_vla.codec.search import WindowSearch, viterbi


@settings(max_examples=25, deadline=None)
@given(b=st.integers(1, 2), s=st.integers(0, 3), d=st.integers(1, 3), seed=st.integers(0, 999))
def test_no_path_from_a_state_does_better(b, s, d, seed):
    slices, lookup = _problem(8 // b, b, s, d, seed)
    state = seed % 2**s
    for is_closed in (False, True):
        start = torch.tensor([state])
        best = min(
            _error(slices, lookup, _windows(own, b, s, state))
            for own in itertools.product(range(2**b), repeat=8 // b)
            if not is_closed or _windows(own, b, s, state)[-1] % 2**s == state
        )
        windows = viterbi(slices, lookup, b, s, start, is_closed)[0].tolist()
        assert _error(slices, lookup, windows) == pytest.approx(best, abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    n_slices=st.integers(1, 60),
    b=st.integers(1, 4),
    s=st.integers(0, 6),
    d=st.integers(1, 4),
    seed=st.integers(0, 999),
)
def test_the_compiled_search_finds_what_the_plain_one_does(n_slices, b, s, d, seed):
    slices, lookup = _problem(n_slices, b, s, d, seed)
    plain, compiled = (
        WindowSearch(lookup, b, s, is_compiled).find(slices)[0].tolist()
        for is_compiled in (False, True)
    )
    errors = [_error(slices, lookup, windows) for windows in (plain, compiled)]
    assert errors[0] == pytest.approx(errors[1], abs=1e-5)
    seam = compiled[-1] % 2**s if n_slices * b >= s else 0
    for before, window in zip([seam, *compiled], compiled, strict=False):
        assert window >> b == before % 2**s


def test_few_tail_biting_streams_would_have_been_better():
    """The state at the seam is found by a search beside it: nearly always the best one."""
    b, s, n_slices = 2, 3, 6
    excess = []
    for seed in range(60):
        slices, lookup = _problem(n_slices, b, s, 2, seed)
        windows = WindowSearch(lookup, b, s).find(slices)[0].tolist()
        assert windows[0] >> b == windows[-1] % 2**s
        streams = itertools.product(range(2**b), repeat=n_slices)
        paths = (_windows(own, b, s, _last_bits(own, b, s)) for own in streams)
        best = min(_error(slices, lookup, path) for path in paths)
        excess.append(_error(slices, lookup, windows) / best - 1)
    assert sum(excess) / len(excess) < 0.02


def _problem(n_slices: int, b: int, s: int, d: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lookup = torch.rand(2 ** (s + b), d, generator=generator)
    return torch.rand(1, n_slices, d, generator=generator), lookup


def _error(slices: Tensor, lookup: Tensor, windows: list[int]) -> float:
    return float((lookup[windows].double() - slices[0].double()).square().sum())


def _windows(own: tuple[int, ...], b: int, s: int, state: int) -> list[int]:
    windows = []
    for bits in own:
        window = state << b | bits
        windows.append(window)
        state = window & (2**s - 1)
    return windows


def _last_bits(own: tuple[int, ...], b: int, s: int) -> int:
    return int("".join(f"{bits:0{b}b}" for bits in own)[-s:], 2)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), window=st.sampled_from([(2, 2, 6), (4, 1, 7), (1, 4, 4)]))
def test_a_codeword_is_found_again_without_error(seed, window):
    d, b, s = window
    lookup = Leader(d, b, s).table()
    generator = torch.Generator().manual_seed(seed)
    own = tuple(torch.randint(0, 2**b, (40,), generator=generator).tolist())
    codeword = lookup[_windows(own, b, s, _last_bits(own, b, s))][None]
    assert torch.equal(lookup[WindowSearch(lookup, b, s).find(codeword)], codeword)


def test_a_slice_needs_only_its_window_of_the_stream():
    spec = Leader(d=2, b=2, s=6)
    compressed = encode(torch.randn(64, 3, generator=torch.Generator().manual_seed(0)), spec)
    whole = decode(compressed)
    n_slices = 32
    bits = unpack(compressed.parts["indices"], 3 * n_slices * spec.b, 1).view(3, -1)
    for column, t in [(0, 3), (1, 10), (2, 31)]:
        stop = (t + 1) * spec.b
        window = int("".join(map(str, bits[column, stop - 8 : stop].tolist())), 2)
        magnitude = spec.table()[window] * compressed.parts["scale"][2 * t : 2 * t + 2].float()
        torch.testing.assert_close(whole[2 * t : 2 * t + 2, column].abs(), magnitude)


def test_a_flipped_bit_harms_only_the_slices_that_see_it():
    spec = Leader(d=2, b=2, s=6)
    compressed = encode(torch.randn(64, 2, generator=torch.Generator().manual_seed(0)), spec)
    damaged = dict(compressed.parts)
    damaged["indices"] = compressed.parts["indices"].clone()
    damaged["indices"][0] ^= 0b0000_0010  # bit 6 of the stream: own bit of slice 3
    before, after = decode(compressed), decode(CompressedTensor(spec, (64, 2), damaged))
    rows = (before != after).any(1).nonzero().flatten().tolist()
    assert rows
    assert set(rows) <= set(range(6, 14))  # slices 3 to 6: 8 bits of window at 2 bits a slice
    assert torch.equal(before[:, 1], after[:, 1])


@settings(deadline=None)
@given(st.integers(1, 17), st.lists(st.integers(0, 2**17 - 1), min_size=1, max_size=50))
def test_packing_is_reversible(bits, values):
    tensor = torch.tensor(values) % 2**bits
    packed = pack(tensor, bits)
    assert len(packed) == -(-len(values) * bits // 8)
    assert torch.equal(unpack(packed, len(values), bits), tensor)
