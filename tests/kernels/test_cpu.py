"""The compiled CPU backend against the definition in float64, for every table and odd shapes."""

import gc
import platform
import weakref
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from einsort_vla.codec import Leader, Scalar, decode, encode, tables
from einsort_vla.compiling import MARCH
from einsort_vla.errors import MissingDependency, UsageError
from einsort_vla.kernels import BackendChoice, decode_fast, dispatch, make_backend
from einsort_vla.kernels.cpu import backend as cpu_backend
from einsort_vla.kernels.cpu import build, ops
from einsort_vla.layers import CompressedLinear
from einsort_vla.private import cache_folder

CPU = BackendChoice("cpu")
TABLES = [Leader(d, b, s) for d, b, s in sorted(tables.available())]
GRIDS = [Leader(1, b, 0) for b in (8, 14)]
ROWS = [1, 2, 4, 5, 15, 16, 17, 64, 129]
TOLERANCE = {torch.float32: 2e-6, torch.float16: 4e-4, torch.bfloat16: 3e-3}


def coded(spec, shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return encode(torch.randn(shape, generator=generator), spec), generator


@contextmanager
def threads(n):
    """So many of torch's, and any matrix worth them."""
    before, worth = torch.get_num_threads(), (ops.COLUMNS_PER_THREAD, ops.WEIGHTS_PER_THREAD)
    torch.set_num_threads(n)
    ops.COLUMNS_PER_THREAD, ops.WEIGHTS_PER_THREAD = 8, 64
    try:
        yield
    finally:
        torch.set_num_threads(before)
        ops.COLUMNS_PER_THREAD, ops.WEIGHTS_PER_THREAD = worth


def error(compressed, x, bias):
    """Relative to the sums of magnitudes: a single output may well cancel."""
    weight = decode(compressed).double()
    expected = x.double() @ weight.t() + (0 if bias is None else bias.double())
    found = make_backend(CPU, compressed).linear(x, bias)
    assert (found.dtype, found.shape) == (x.dtype, expected.shape)
    size = x.double().abs() @ weight.abs().t() + (0 if bias is None else bias.double().abs())
    return float((found.double() - expected).norm() / size.norm())


@pytest.mark.parametrize("n_out", [67, 64])  # the latter with slices looked up together
@pytest.mark.parametrize("spec", [*TABLES, *GRIDS, Leader(2, 2, 6, rotated=True)], ids=str)
def test_every_table_at_every_number_of_rows(spec, n_out):
    compressed, generator = coded(spec, (n_out, 48))
    bias = torch.randn(n_out, generator=generator)
    for n in ROWS:
        x = torch.randn(n, 48, generator=generator)
        for dtype, tolerance in TOLERANCE.items():
            assert error(compressed, x.to(dtype), bias) < tolerance, (n, dtype)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(TABLES + GRIDS), st.integers(1, 130), st.integers(1, 70), st.integers(1, 6),
    st.integers(1, 3),
)  # fmt: skip
def test_any_shape_on_any_number_of_threads(spec, rows, columns, n, n_threads):
    compressed, generator = coded(spec, (rows, columns), seed=rows)
    x = torch.randn(n, columns, generator=generator)
    with threads(n_threads):
        assert error(compressed, x, None) < 2e-6
        backend = make_backend(CPU, compressed)
        streams, window = backend._arguments[:4], backend._arguments[4:]
        assert len(streams[2]) == 2 ** sum(window[1:])  # merged, where the rows allow it
        found = torch.ops.einsort.decode_leader(*streams, columns, *window)
        assert torch.equal(found, decode(compressed))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([*TABLES, *GRIDS, Scalar(5)]), st.booleans(), st.integers(1, 130),
    st.integers(1, 100), st.integers(1, 3),
)  # fmt: skip
def test_decoding_fast_is_decoding(spec, rotated, rows, columns, n_threads):
    if isinstance(spec, Leader):
        spec = replace(spec, rotated=rotated)
    compressed, _ = coded(spec, (rows, columns))
    with threads(n_threads):
        found, expected = decode_fast(compressed), decode(compressed)
    # Sums over up to 99 cosines may be in another order: measured 1.2e-6 apart, without FMA.
    if isinstance(spec, Leader) and rotated:
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
    else:
        assert torch.equal(found, expected)


def test_without_a_compiler_decoding_is_slow_and_says_so(monkeypatch, caplog):
    compressed, _ = coded(Leader(2, 2, 6, rotated=True), (24, 12))
    monkeypatch.setenv("CXX", "no-such-compiler")
    caches = (build.library, cpu_backend.why_unavailable, dispatch._log_once)
    for cached in caches:
        cached.cache_clear()
    try:
        for _ in range(2):
            assert torch.equal(decode_fast(compressed), decode(compressed))
    finally:
        for cached in caches:
            cached.cache_clear()
    assert caplog.text.count("no-such-compiler") == 1


@pytest.mark.skipif(platform.machine() != "x86_64", reason="which flags there are")
@pytest.mark.parametrize("march", ["x86-64", "haswell"])
def test_older_processors_have_the_same_results(march, monkeypatch):
    """Built for them here; code of AVX-512 is left out, or narrower vectors are taken."""
    if march == "haswell" and not torch.cpu._is_avx2_supported():
        pytest.skip("no AVX2")
    native = build.build(cache_folder())
    monkeypatch.setenv(MARCH, march)
    assert build.build(cache_folder()) != native
    caches = (build.library, cpu_backend._shared)
    for cached in caches:
        cached.cache_clear()
    try:
        for spec in (Leader(2, 2, 6), Leader(2, 6, 2), Leader(4, 3, 5)):
            compressed, generator = coded(spec, (200, 70))
            for n in (1, 3, 9, 129):
                assert error(compressed, torch.randn(n, 70, generator=generator), None) < 2e-6
    finally:
        for cached in caches:
            cached.cache_clear()


def test_refined_tables_other_forms_and_empty_batches():
    compressed, _ = coded(Leader(2, 2, 6, refined=True), (40, 24))
    assert error(compressed, torch.randn(3, 24), None) < 2e-6
    other, _ = coded(Scalar(bits=4), (40, 24))
    assert error(other, torch.randn(3, 24), None) < 2e-6
    assert make_backend(CPU, compressed).linear(torch.zeros(2, 0, 24), None).shape == (2, 0, 40)


def test_the_ops_are_whole_and_compile():
    compressed, generator = coded(Leader(2, 3, 5), (33, 20))
    backend, x = (
        make_backend(CPU, compressed),
        torch.randn(7, 20, generator=generator),
    )
    torch.library.opcheck(torch.ops.einsort.matmul_leader.default, (x, *backend._arguments))
    streams, window = backend._arguments[:4], backend._arguments[4:]
    torch.library.opcheck(torch.ops.einsort.decode_leader.default, (*streams, 20, *window))
    layer = nn.Sequential(CompressedLinear(compressed, None, CPU), nn.GELU())
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x))


def test_nothing_is_kept_of_the_inputs():
    """Not even in a cycle: activations of a large model would pile up between collections."""
    compressed, generator = coded(Leader(2, 2, 6), (40, 24))
    backend = make_backend(CPU, compressed)
    gc.disable()
    try:
        with torch.inference_mode():
            x = torch.randn(9, 24, generator=generator)
            y = backend.linear(x, None)
            left = weakref.ref(x), weakref.ref(y)
            del x, y
            assert [reference() for reference in left] == [None, None]
    finally:
        gc.enable()


def test_compiled_once_and_again_when_it_changes(tmp_path, monkeypatch):
    first = build.build(tmp_path)
    stamp = first.stat().st_mtime_ns
    assert build.build(tmp_path) == first
    assert first.stat().st_mtime_ns == stamp
    changed = tmp_path / "leader.cpp"
    changed.write_text(build.SOURCES[0].read_text() + "\n// changed\n")
    monkeypatch.setattr(build, "SOURCES", (changed, *build.SOURCES[1:]))
    assert build.build(tmp_path) != first
    changed.write_text("no C++")
    with pytest.raises(MissingDependency, match=r"cannot compile the leader code: .*leader\.cpp"):
        build.build(tmp_path)
    assert len(list(tmp_path.glob("*.so"))) == 2


def test_a_library_that_is_not_what_was_compiled_is_never_loaded(tmp_path):
    """Changed, a link to another's, or writable by others: it is compiled anew."""
    made = build.build(tmp_path)
    content = made.read_bytes()
    for spoil in (
        lambda path: path.write_bytes(content[:-1]),
        lambda path: path.chmod(0o777),
        lambda path: path.rename(tmp_path / "other") and path.symlink_to(tmp_path / "other"),
    ):
        spoil(made)
        made = build.build(tmp_path)
        assert made.read_bytes() == content
        assert not made.is_symlink()
        assert made.stat().st_mode & 0o022 == 0


def test_a_cache_that_others_can_write_to_is_refused_with_the_fix(tmp_path, monkeypatch):
    root = tmp_path / "root"
    (root / "einsort-vla").mkdir(parents=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(root))
    (root / "einsort-vla").chmod(0o777)
    with pytest.raises(MissingDependency, match=r"other users can write to .*remove it"):
        build.library.__wrapped__()
    (root / "einsort-vla").rmdir()
    root.chmod(0o775)
    with pytest.raises(MissingDependency, match=r"can replace what is in .*chmod go-w"):
        build.library.__wrapped__()
    root.chmod(0o1777)  # a sticky one, such as /tmp, is no danger to what is one's own
    (root / "einsort-vla").symlink_to(tmp_path)
    with pytest.raises(MissingDependency, match="is a link or file, not a folder of yours"):
        build.library.__wrapped__()
    (root / "einsort-vla").unlink()
    build.library.__wrapped__()
    assert (root / "einsort-vla").stat().st_mode & 0o777 == 0o700


def test_a_cache_that_cannot_be_used_is_named(tmp_path, monkeypatch):
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(in_the_way))
    with pytest.raises(MissingDependency, match=r"kernels cannot be kept in .*file.*XDG"):
        build.library.__wrapped__()


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    compressed, _ = coded(Leader(2, 2, 6), (8, 8))
    with pytest.raises(UsageError, match="the input is on meta"):
        make_backend(CPU, compressed).linear(torch.zeros(1, 8, device="meta"), None)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(MissingDependency, match=r"a C\+\+ compiler is needed \(no-such-compiler\)"):
        build.build(tmp_path)


def test_damaged_streams_are_never_read_beyond_their_end():
    """Any bytes decode to something finite; what is short is zeros."""
    rng = np.random.default_rng(0)
    for spec in TABLES:
        shape = (int(rng.integers(1, 40)), int(rng.integers(1, 20)))
        parts = {
            name: torch.from_numpy(rng.integers(0, 256, part.shape, dtype=np.uint8))
            for name, part in spec.layout(shape).items()
            if part.dtype == torch.uint8
        }
        scale, table = torch.ones(shape[0]), spec.table().float().contiguous()
        window = (spec.d, spec.b, spec.s)
        found = torch.ops.einsort.decode_leader(
            parts["signs"], parts["indices"], table, scale, shape[1], *window
        )  # fmt: skip
        expected = spec.decode({**parts, "scale": scale.half()}, shape)
        assert torch.equal(found, expected)
