"""The curve code against its definition in whole numbers, and its search against brute force."""

import itertools
import math
import platform

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from einsort_vla.codec import CompressedTensor, Curve, decode, encode
from einsort_vla.codec.curve import layout, native
from einsort_vla.codec.curve.scales import codes_of, factors, scales
from einsort_vla.codec.curve.search import FINER, Search, viterbi
from einsort_vla.codec.curve.values import POLYNOMIALS, fill, new_bits, window_values
from einsort_vla.compiling import MARCH
from einsort_vla.errors import UsageError

CPU = torch.device("cpu")
EIGHTHS = st.integers(8, 40)


def seeded(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_scales_are_eighths_of_an_octave():
    found = factors(CPU)
    assert found[0] == found[128] == 0
    exact = 2.0 ** ((torch.arange(1, 128, dtype=torch.float64) - 127) / 8)
    assert torch.equal(found[1:128], exact.float())
    assert torch.equal(found[129:], -exact.float())
    expected = torch.arange(256).to(torch.uint8)
    expected[128] = 0
    assert torch.equal(codes_of(found, torch.ones(1)), expected)
    odd = torch.tensor([-1.0, 0.0, 1e-30, torch.nan, 2.0])
    assert codes_of(odd, torch.ones(1)).tolist() == [255, 0, 0, 0, 127]


@pytest.mark.parametrize("left", [seeded(200, 1), torch.ones(200, 1)], ids=["normal", "ones"])
def test_matrices_of_rank_one_keep_their_rows(left):
    """All columns have one stream, which has not the sign of each row at a bit a weight."""
    weight = left * seeded(1, 40, seed=1).sign()
    missing = weight - decode(encode(weight, Curve(1.0)))
    lost = missing.square().sum(1) / weight.square().sum(1)
    assert lost.max() < 1
    assert lost.mean() < 0.4


def value_of(window, length):
    """What docs/format.md says, in Python's own numbers."""
    factor, flip = POLYNOMIALS[length]
    product = (window ^ flip) * factor % 2**32
    return (sum(product.to_bytes(4, "little")) - 508) // 4


@pytest.mark.parametrize("length", POLYNOMIALS)
def test_values_are_the_sorted_curve_of_a_gaussian(length):
    values = window_values(length, CPU)
    assert values.tolist() == [value_of(w, length) for w in range(2**length)]
    assert values.abs().max() <= 127
    steps = (torch.arange(2**length, dtype=torch.float64) + 0.5) / 2**length
    curve = math.sqrt(2) * torch.erfinv(2 * steps - 1)
    found = values.double().sort().values
    found = (found - found.mean()) / found.std()
    assert (found - curve).abs()[2**length // 100 : -(2**length) // 100].max() < 0.2


@settings(max_examples=40, deadline=None)
@given(
    rows=st.one_of(st.integers(1, 40), st.sampled_from([128, 136, 1024, 1100])),
    columns=st.sampled_from([1, 2, 31, 32, 33, 65]),
    eighths=EIGHTHS,
    length=st.sampled_from([10, 12, 16]),
    seed=st.integers(0, 999),
)
def test_decoding_is_what_the_format_says(rows, columns, eighths, length, seed):
    """Any words: bit strings of each column, read one weight at a time."""
    spec = Curve(eighths / 8, length)
    stored = spec.layout((rows, columns))
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(-(2**15), 2**15, stored["words"].shape, generator=generator)
    unit = torch.tensor([0.3])
    codes = torch.randint(0, 256, (rows,), generator=generator).to(torch.uint8)
    parts = {"words": words.to(torch.int16), "scale": codes, "unit": unit}
    found = decode(CompressedTensor(spec, (rows, columns), parts))
    column = seed % columns
    expected, first = [], 0
    for start in range(0, rows, 128):
        n = min(128, rows - start)
        n_words = -(-(n * eighths // 8) // 16)
        bits = "".join(
            f"{words[first + place(j, column, columns, n_words)] & 0xFFFF:016b}"
            for j in range(n_words)
        )
        first += n_words * columns
        for row in range(n):
            end = (row + 1) * eighths // 8
            seen = "".join(bits[k % len(bits)] for k in range(end - length, end))
            expected.append(value_of(int(seen, 2), length))
    assert torch.equal(
        found[:, column], torch.tensor(expected) * scales(codes, torch.tensor([0.3]))
    )


def test_the_example_of_the_format():
    parts = {
        "words": torch.tensor([0x1B2F], dtype=torch.int16),
        "scale": torch.tensor([127, 127, 119, 255], dtype=torch.uint8), "unit": torch.ones(1),
    }  # fmt: skip
    found = decode(CompressedTensor(Curve(2.0, 12), (4, 1), parts))
    assert found.flatten().tolist() == [-44, 41, 3.5, -23]


def place(word, column, columns, n_words):
    """Where a column's word lies in its segment: blocks of 32 columns, words."""
    block, lane = divmod(column, 32)
    width = min(32, columns - 32 * block)
    return block * 32 * n_words + word * width + lane


@settings(max_examples=60, deadline=None)
@given(
    rows=st.one_of(st.integers(1, 60), st.sampled_from([128, 1030])),
    eighths=EIGHTHS,
    length=st.sampled_from([10, 12]),
    size=st.sampled_from([1e-3, 1.0, 3.0, 1e4]),
    seed=st.integers(0, 999),
)
def test_the_compiled_search_finds_the_streams_that_the_plain_one_does(
    rows, eighths, length, size, seed
):
    targets = size * 33 * seeded(3, rows, seed=seed)
    plain, compiled = (Search(eighths, length, own).find(targets) for own in (False, True))
    assert torch.equal(plain[0], compiled[0])
    assert torch.equal(plain[1], compiled[1])


@settings(max_examples=15, deadline=None)
@given(eighths=st.sampled_from([8, 11, 12, 16]), seed=st.integers(0, 999))
def test_no_stream_from_a_window_does_better(eighths, seed):
    length, rows = 10, 8
    table, bits = window_values(length, CPU), new_bits(eighths, rows)
    targets = (2**FINER * 33 * seeded(1, rows, seed=seed)).round().int()
    before = torch.tensor([seed % 2**length])
    # Enough bits are free at the end of the stream for any last window to close it.
    path = viterbi(targets, table, 0, bits, before, left=length)[0].tolist()
    assert path[0] == before

    def cost(own):
        total, window = 0, int(before)
        for target, new, b in zip(targets[0].tolist(), own, bits, strict=True):
            window = (window << b | new) % 2**length
            apart = max(-(2**15), min(target - 2**FINER * int(table[window]), 2**15 - 1))
            total += apart**2 >> 16
        return total

    found = [window % 2**b for window, b in zip(path[1:], bits, strict=True)]
    best = min(map(cost, itertools.product(*(range(2**b) for b in bits))))
    assert cost(found) == best


@pytest.mark.parametrize("rows", [20, 42, 61])
@pytest.mark.parametrize("eighths", [8, 13, 39])
def test_short_streams_close_at_no_cost(rows, eighths):
    """Whatever number of bits is left of the last word, from none to more than a window."""
    spec = Curve(eighths / 8, 10)
    curve = window_values(10, CPU).float()
    targets = fill(spec.bits) * curve.std() * seeded(200, rows)
    found = Search(eighths, 10).find(targets)[1].float()
    missing = targets - (found * targets).sum() / found.square().sum() * found
    error = missing.square().mean() / targets.square().mean()
    assert error < 1.35 * spec.predicted_distortion(rows)


@settings(max_examples=20, deadline=None)
@given(eighths=EIGHTHS, length=st.sampled_from([10, 12]), seed=st.integers(0, 999))
def test_what_is_decoded_is_found_again(eighths, length, seed):
    """Exact values cost no error, but at the seam, where other windows may have the first ones."""
    spec, shape = Curve(eighths / 8, length), (96, 3)
    words = torch.randint(-(2**15), 2**15, spec.layout(shape)["words"].shape,
                          generator=torch.Generator().manual_seed(seed))  # fmt: skip
    ones = {"scale": torch.full((96,), 127, dtype=torch.uint8), "unit": torch.ones(1)}
    parts = {"words": words.to(torch.int16), **ones}
    values = decode(CompressedTensor(spec, shape, parts))
    streams, found = Search(eighths, length).find(values.t().contiguous())
    assert (found.t() - values).square().mean() < 0.1 * values.square().mean()
    unsigned = layout.windows(streams, 96, eighths, length)
    assert torch.equal(window_values(length, CPU)[unsigned.long()], found.int())


def test_a_flipped_bit_harms_only_the_rows_that_see_it():
    compressed = encode(seeded(1100, 40), Curve(2.0, 12))
    damaged = dict(compressed.parts)
    words = damaged["words"] = compressed.parts["words"].clone()
    words[3 * 32 + 5] ^= 1 << 9  # column 5, word 3: bit 54 of its stream, own bit of row 27
    changed = decode(compressed) != decode(CompressedTensor(compressed.spec, (1100, 40), damaged))
    rows, columns = changed.nonzero().unbind(1)
    assert set(columns.tolist()) == {5}
    assert {27} <= set(rows.tolist()) <= set(range(27, 33))


@pytest.mark.parametrize("bits", [1.0, 1.5, 2.0, 3.0, 4.0, 5.0])
def test_the_distance_to_the_bound(bits):
    """Everything counted; the bound is 2^(-2 bits) of the variance."""
    weight = seeded(512, 1024, seed=3)
    compressed = encode(weight, Curve(bits))
    spent = compressed.stored_bits / weight.numel()
    error = float((weight - decode(compressed)).square().mean() / weight.square().mean())
    most = {1.0: 0.75, 1.5: 0.77, 2.0: 0.82, 3.0: 1.1, 4.0: 1.3, 5.0: 1.6}[bits]
    assert 10 * math.log10(error * 4**spent) < most


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2.1,), "no code of 2.1 bits"),
        ((0.875,), "no code of 0.875 bits"),
        ((5.125,), "all eighths from 1 to 5"),
        ((math.nan,), "no code of nan bits"),
        ((2.0, 11), "windows of 10, 12, 13, 14, 16 bits; not 11"),
        ((7.0, 12), "has window=7, its own bits"),
    ],
)
def test_codes_that_do_not_exist(arguments, message):
    with pytest.raises(UsageError, match=message):
        Curve(*arguments)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="which flags there are")
@pytest.mark.parametrize("march", ["x86-64", "x86-64-v3"])
def test_older_processors_find_the_same_streams(march, monkeypatch):
    if march == "x86-64-v3" and not torch.cpu._is_avx2_supported():
        pytest.skip("no AVX2")
    targets = 33 * seeded(2, 200)
    codes = [Search(eighths, 10) for eighths in (8, 13, 20, 27, 37)]
    expected = [own.find(targets) for own in codes]
    monkeypatch.setenv(MARCH, march)
    native._library.cache_clear()
    try:
        for own, (streams, values) in zip(codes, expected, strict=True):
            found = own.find(targets)
            assert torch.equal(found[0], streams)
            assert torch.equal(found[1], values)
    finally:
        native._library.cache_clear()


def test_without_a_compiler_the_plain_search_takes_over(monkeypatch, caplog):
    monkeypatch.setenv("CXX", "no-such-compiler")
    native._library.cache_clear()
    try:
        weight = seeded(24, 3)
        coded = [encode(weight, Curve(2.0, 10)) for _ in range(2)]
    finally:
        native._library.cache_clear()
    assert caplog.text.count("takes far longer") == 1
    monkeypatch.undo()
    assert torch.equal(encode(weight, Curve(2.0, 10)).parts["words"], coded[1].parts["words"])
