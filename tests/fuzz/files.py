"""Mutations of whole files: emptied, cut, doubled, something else in their place."""

import os
import shutil

from tests.fuzz.change import ESCAPED, Change, Spot

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 123456\n".format("ab" * 32)


def change_file(spot: Spot) -> Change | None:
    """One of the mutations below."""
    mutations, weights = zip(*MUTATIONS.items(), strict=True)
    return spot.rng.choices(mutations, weights)[0](spot)


def _may_lack(spot: Spot) -> bool:
    name = spot.path.name
    return spot.target.is_optional(name) or spot.target.is_free(name)


def _rewrite(spot: Spot, name: str, content: bytes, free: bool = False) -> Change:
    spot.path.write_bytes(content)
    return Change(name, spot.path.name, free or spot.target.has_free_bytes)


def emptied(spot: Spot) -> Change | None:
    content = spot.rng.choice((b"", b"\n", b"\0" * 64, b" "))
    is_blank = not content.strip(b"\0 \n")  # zeros are what a lost write leaves
    is_new_log = spot.target.form == "lines" and is_blank
    return _rewrite(spot, "emptied", content, is_new_log)


def cut(spot: Spot) -> Change | None:
    """As a copy that was broken off leaves it; a log may end anywhere."""
    content = spot.path.read_bytes()
    at = spot.rng.randrange(len(content) + 1)
    if spot.target.form == "lines" and spot.rng.random() < 0.5:
        at = content.find(b"\n", at) + 1
    is_free = spot.target.form == "lines" or spot.target.is_optional(spot.path.name)
    return _rewrite(spot, "cut", content[:at], is_free)


def doubled(spot: Spot) -> Change | None:
    return _rewrite(spot, "doubled", spot.path.read_bytes() * 2, spot.target.form == "lines")


def removed(spot: Spot) -> Change | None:
    spot.path.unlink()
    return Change("removed", spot.path.name, _may_lack(spot))


def foreign_text(spot: Spot) -> Change | None:
    """Latin-1 letters, a byte order mark, NUL, another encoding, other line ends."""
    content, rng = spot.path.read_bytes(), spot.rng
    at = rng.randrange(len(content) + 1)
    odd = rng.choice((b"caf\xe9", b"\xff\xfe", b"\0", b"\xed\xa0\x80", b"\xc3", b"\x1b[31m", b"\r"))
    new = rng.choice((
        content[:at] + odd + content[at:], b"\xef\xbb\xbf" + content, content + odd, odd + content,
        content.replace(b"\n", b"\r\n"), content.decode("latin-1").encode("utf-16"),
    ))  # fmt: skip
    is_free = any(spot.target.is_setting(place) for place in (spot.path.name, f"{spot.path.name}."))
    return _rewrite(spot, "foreign_text", new, is_free or bool(spot.target.settings))


def git_lfs_pointer(spot: Spot) -> Change | None:
    return _rewrite(spot, "git_lfs_pointer", LFS.encode())


def other_file(spot: Spot) -> Change | None:
    """The content of a file of another kind."""
    new = spot.rng.choice((b"{}", b"[]", b"null", b"0", b'""', b"PK\5\6" + bytes(18), b"\x80\4.",
                           b"<html>404</html>", b"\x7fELF" + bytes(60), bytes(range(256)),
                           b"\x93NUMPY\1\0", b"---\n...", b"\x89PNG\r\n\x1a\n"))  # fmt: skip
    return _rewrite(spot, "other_file", new)


def directory(spot: Spot) -> Change | None:
    spot.path.unlink()
    spot.path.mkdir()
    if spot.rng.random() < 0.5:
        (spot.path / spot.path.name).write_bytes(b"x")
    return Change("directory", spot.path.name, _may_lack(spot))


def symbolic_link(spot: Spot) -> Change | None:
    """Dangling, to itself, to a folder, to a device, or to the same content elsewhere."""
    rng, kept = spot.rng, spot.path.with_name(f"{spot.path.name}.kept")
    target = rng.choice((f"../outside/{ESCAPED}", spot.path.name, ".", "/dev/zero", kept.name, "..",
                         "/proc/self/mem", "/dev/tty"))  # fmt: skip
    if target == kept.name:
        shutil.copyfile(spot.path, kept)
    spot.path.unlink()
    os.symlink(target, spot.path)
    is_gone = target != kept.name
    return Change("symbolic_link", f"{spot.path.name} -> {target}",
                  is_gone and _may_lack(spot))  # fmt: skip


def named_pipe(spot: Spot) -> Change | None:
    """Nobody writes to it: whoever opens it waits."""
    spot.path.unlink()
    os.mkfifo(spot.path)
    return Change("named_pipe", spot.path.name, _may_lack(spot))


MUTATIONS = {
    emptied: 1, cut: 2, doubled: 1, removed: 1, foreign_text: 2, git_lfs_pointer: 1, other_file: 1,
    directory: 1, symbolic_link: 2, named_pipe: 1,
}  # fmt: skip
