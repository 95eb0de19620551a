"""What is compiled once and kept: never another's, and what is missing has a name."""

import pytest
import torch

from einsort_vla import native_library
from einsort_vla.codec import Curve, Scalar, decode, encode
from einsort_vla.compiling import build_native
from einsort_vla.errors import MissingDependency, UsageError
from einsort_vla.kernels import BackendChoice, cpu, decode_fast, dispatch, make_backend
from einsort_vla.kernels.native import library
from einsort_vla.native_flags import OWN
from einsort_vla.native_library import FILES

CPU = BackendChoice("cpu")


def build(folder):
    return build_native("native", FILES, folder, OWN)


@pytest.fixture
def anew(monkeypatch):
    """Nothing is known of what was found or said before; no library that came with a wheel."""
    monkeypatch.setattr(native_library, "SHIPPED", "none")
    caches = (
        library.library, native_library.native_library, cpu.why_unavailable, dispatch._log_once,
    )  # fmt: skip
    for cached in caches:
        cached.cache_clear()
    yield
    monkeypatch.undo()
    for cached in caches:
        cached.cache_clear()


def test_without_a_compiler_decoding_is_slow_and_says_so(anew, monkeypatch, caplog):
    compressed = encode(torch.randn(24, 12), Curve(2.0, rotated=True))
    monkeypatch.setenv("CXX", "no-such-compiler")
    for _ in range(2):
        assert torch.equal(decode_fast(compressed), decode(compressed))
    assert caplog.text.count("no-such-compiler") == 1
    with pytest.raises(MissingDependency, match=r"--backend cpu: a C\+\+ compiler is needed"):
        make_backend(CPU, compressed)


def test_compiled_once_and_again_when_it_changes(tmp_path):
    first = build(tmp_path)
    stamp = first.stat().st_mtime_ns
    assert build(tmp_path) == first
    assert first.stat().st_mtime_ns == stamp
    changed = tmp_path / "choose.cpp"
    changed.write_text("no C++")
    with pytest.raises(MissingDependency, match=r"cannot compile the native code: .*choose\.cpp"):
        build_native("native", (changed, *FILES[1:]), tmp_path, OWN)
    assert len(list(tmp_path.glob("*.so"))) == 1


def test_a_library_that_is_not_what_was_compiled_is_never_loaded(tmp_path):
    """Changed, a link to another's, or writable by others: it is compiled anew."""
    made = build(tmp_path)
    content = made.read_bytes()
    for spoil in (
        lambda path: path.write_bytes(content[:-1]),
        lambda path: path.chmod(0o777),
        lambda path: path.rename(tmp_path / "other") and path.symlink_to(tmp_path / "other"),
    ):
        spoil(made)
        made = build(tmp_path)
        assert made.read_bytes() == content
        assert not made.is_symlink()
        assert made.stat().st_mode & 0o022 == 0


def test_a_cache_that_others_can_write_to_is_refused_with_the_fix(anew, tmp_path, monkeypatch):
    root = tmp_path / "root"
    (root / "einsort-vla").mkdir(parents=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(root))
    (root / "einsort-vla").chmod(0o777)
    with pytest.raises(MissingDependency, match=r"other users can write to .*remove it"):
        library.library()
    (root / "einsort-vla").rmdir()
    root.chmod(0o775)
    with pytest.raises(MissingDependency, match=r"can replace what is in .*chmod go-w"):
        library.library()
    root.chmod(0o1777)  # a sticky one, such as /tmp, is no danger to what is one's own
    (root / "einsort-vla").symlink_to(tmp_path)
    with pytest.raises(MissingDependency, match="is a link or file, not a folder of yours"):
        library.library()
    (root / "einsort-vla").unlink()
    library.library()
    assert (root / "einsort-vla").stat().st_mode & 0o777 == 0o700


def test_a_cache_that_cannot_be_used_is_named(anew, tmp_path, monkeypatch):
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(in_the_way))
    with pytest.raises(MissingDependency, match=r"library cannot be kept in .*file.*XDG"):
        library.library()


def test_other_forms_and_devices(anew):
    other = encode(torch.randn(40, 24), Scalar(4))
    assert make_backend(CPU, other).name == "decoded"
    compressed = encode(torch.randn(8, 8), Curve(2.0))
    with pytest.raises(UsageError, match="the input is on meta"):
        make_backend(CPU, compressed).linear(torch.zeros(1, 8, device="meta"), None)
