"""One writer a folder; what it leaves is gone on with or cleared, and nobody else's files are."""

import errno
import multiprocessing
import os
import shutil
import signal

import pytest

from einsort_vla.claims import JOURNAL, MARK, atomic_folder, claim, kept, resumable_folder
from einsort_vla.errors import CheckpointError, NumericsError, UsageError

BOTH = [atomic_folder, lambda path: resumable(path)]


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def resumable(path, request="a", expected=("weights", "deep/weights")):
    return _FolderOf(resumable_folder(path, request, expected))


class _FolderOf:
    """`resumable_folder` with the face of `atomic_folder`."""

    def __init__(self, inner):
        self._inner = inner

    def __enter__(self):
        self.made = self._inner.__enter__()
        return self.made.folder

    def __exit__(self, *error):
        return self._inner.__exit__(*error)


def write(path, request="a", expected=("weights",), error=None):
    """A writer that stops half-way with an error; what it found there."""
    with resumable_folder(path, request, expected) as made:
        found = names(made.folder)
        for name in expected:
            (made.folder / name).touch()
        made.journal.write_text("half\n")
        if error:
            raise error
    return found


def stop(path):
    with pytest.raises(KeyboardInterrupt):
        write(path, error=KeyboardInterrupt())


def kill(path):
    """A writer without handlers."""
    process = multiprocessing.get_context("fork").Process(target=_die_in, args=(path,))
    process.start()
    process.join()


def _die_in(path):
    with atomic_folder(path) as partial:
        (partial / "weights").touch()
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("make", BOTH)
def test_a_folder_is_never_written_over(tmp_path, make):
    def write_while_another_does():
        with make(tmp_path / "new") as partial:
            (partial / "weights").write_bytes(b"mine")
            (tmp_path / "new").mkdir()
            (tmp_path / "new" / "weights").write_bytes(b"theirs")

    with pytest.raises(CheckpointError, match="exists already"):
        write_while_another_does()
    assert (tmp_path / "new" / "weights").read_bytes() == b"theirs"
    assert names(tmp_path) == ["new", "new/weights"]
    with make(tmp_path / "other") as partial:
        (partial / "deep").mkdir()
        (partial / "deep" / "weights").write_bytes(b"mine")
    assert names(tmp_path / "other") == ["deep", "deep/weights"]
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("make", BOTH)
def test_the_second_writer_is_refused_and_the_first_ends_whole(tmp_path, make):
    with make(tmp_path / "new") as partial:
        (partial / "weights").touch()
        for other in BOTH:
            with pytest.raises(UsageError, match=r"another process is writing .*new\. Wait"):
                other(tmp_path / "new").__enter__()
    assert names(tmp_path) == ["new", "new/weights"]


def test_a_claim_holds_the_name_before_and_after_its_folder_is_made(tmp_path):
    with claim(tmp_path / "new") as own:
        with pytest.raises(UsageError, match="another process is writing"):
            claim(tmp_path / "new").__enter__()
        with atomic_folder(own) as partial:
            (partial / "weights").touch()
    assert names(tmp_path) == ["new", "new/weights"]
    with pytest.raises(ZeroDivisionError), claim(tmp_path / "other"):
        raise ZeroDivisionError
    assert names(tmp_path) == ["new", "new/weights"]


def test_a_partial_folder_of_others_is_left_alone(tmp_path):
    theirs = tmp_path / "new.partial"
    theirs.mkdir()
    (theirs / "diary").write_text("mine")
    for make in BOTH:
        with pytest.raises(CheckpointError, match=r"einsort-vla did not make it. Rename it"):
            make(tmp_path / "new").__enter__()
    assert names(tmp_path) == ["new.partial", "new.partial/diary"]
    (theirs / "diary").unlink()
    with atomic_folder(tmp_path / "new"):
        pass  # nobody misses an empty one
    (tmp_path / "file.partial").write_text("mine")
    (tmp_path / "link.partial").symlink_to(tmp_path / "new")
    for name in ("file", "link"):
        with pytest.raises(CheckpointError, match="did not make it"):
            atomic_folder(tmp_path / name).__enter__()
    assert (tmp_path / "file.partial").read_text() == "mine"


def test_files_that_others_put_there_are_told_and_never_shipped_or_deleted(tmp_path):
    for place in ("diary", "new/diary", "new/deep/diary"):
        stop(tmp_path / "new")
        diary = tmp_path / "new.partial" / place
        diary.parent.mkdir(exist_ok=True)
        diary.write_text("mine")
        for request in "ab":
            with pytest.raises(CheckpointError, match=r"did not write: .*diary. Move it away"):
                resumable(tmp_path / "new", request).__enter__()
        with pytest.raises(CheckpointError, match="diary"):
            atomic_folder(tmp_path / "new").__enter__()
        assert diary.read_text() == "mine"
        shutil.rmtree(tmp_path / "new.partial")

    def meet_them():
        with resumable_folder(tmp_path / "new", "a", ["weights"]) as made:
            made.journal.write_text("weights\n")
            (made.folder / "weights").touch()
            (made.folder / "diary").touch()

    with pytest.raises(CheckpointError, match="did not write: diary"):
        meet_them()
    assert names(tmp_path / "new.partial") == [MARK, JOURNAL, "new", "new/diary", "new/weights"]


def test_nothing_is_written_or_deleted_where_links_and_names_lead(tmp_path):
    mine = tmp_path / "mine"
    for place in (JOURNAL, "new/weights", "new", MARK):
        stop(tmp_path / "new")
        link = tmp_path / "new.partial" / place
        link.unlink() if link.is_file() else shutil.rmtree(link)
        mine.mkdir() if place == "new" else mine.write_text("mine")
        link.symlink_to(mine)
        for make in BOTH:
            with pytest.raises(CheckpointError, match=rf"did not write: {place}. Move it away"):
                make(tmp_path / "new").__enter__()
        shutil.rmtree(mine) if place == "new" else mine.unlink()
        shutil.rmtree(tmp_path / "new.partial")
    mine.write_text("mine")
    stop(tmp_path / "new")
    mark = tmp_path / "new.partial" / MARK
    mark.write_text(mark.read_text().replace('["weights"]', '["weights", "../../mine"]'))
    assert "../../mine" in mark.read_text()
    assert write(tmp_path / "new") == []
    assert mine.read_text() == "mine"


def test_what_is_done_is_kept_for_the_same_request_alone(tmp_path, caplog):
    stop(tmp_path / "new")
    assert kept(tmp_path / "new").startswith(f"What is done so far is kept in {tmp_path}/new.part")
    with pytest.raises(NumericsError, match=r"bad. What is done so far is kept in .*new.partial"):
        write(tmp_path / "new", "a", ["weights", "config"], NumericsError("bad."))
    assert names(tmp_path / "new.partial" / "new") == ["config", "weights"]
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(CheckpointError, match=r"No space left on device. What is done"):
        write(tmp_path / "new", "a", ["weights"], full)
    assert names(tmp_path / "new.partial" / "new") == ["weights"]  # the other is wanted no more
    assert write(tmp_path / "new", "b", ["weights"]) == []
    assert "another request; it is begun anew" in caplog.text
    assert names(tmp_path) == ["new", "new/weights"]


def test_an_error_before_anything_is_done_leaves_nothing(tmp_path):
    def fail():
        with resumable(tmp_path / "new") as partial:
            (partial / "weights").touch()
            raise NumericsError("bad")

    with pytest.raises(NumericsError, match=r"^bad$"):
        fail()
    assert names(tmp_path) == []
    assert kept(tmp_path / "new") == ""


def test_what_a_killed_writer_leaves_is_cleared(tmp_path):
    kill(tmp_path / "new")
    assert names(tmp_path / "new.partial") == [MARK, "new", "new/weights"]
    with atomic_folder(tmp_path / "new") as partial:
        assert names(partial) == []
    assert names(tmp_path) == ["new"]
    kill(tmp_path / "other")
    with resumable(tmp_path / "other") as partial:
        assert names(partial) == []


def test_a_damaged_mark_is_of_no_request(tmp_path):
    stop(tmp_path / "new")
    (tmp_path / "new.partial" / MARK).write_bytes(b"\xff{")
    with resumable(tmp_path / "new") as partial:
        assert names(partial) == []


def test_many_writers_at_once(tmp_path):
    """Whoever ends first wins; nobody sees half of it, whatever the moment of the others."""
    context = multiprocessing.get_context("fork")
    for k in range(10):
        writers = [
            context.Process(target=_write, args=(tmp_path / f"new{k}", str(n))) for n in range(4)
        ]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert [writer.exitcode for writer in writers].count(0) == 1
        a, b = ((tmp_path / f"new{k}" / name).read_text() for name in "ab")
        assert a == b
    assert len(names(tmp_path)) == 30


def _write(path, text):
    try:
        with atomic_folder(path) as partial:
            for name in "ab":
                (partial / name).write_text(text)
    except (CheckpointError, UsageError):
        raise SystemExit(3) from None
