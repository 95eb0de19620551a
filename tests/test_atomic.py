"""What is written is whole or not there, and what was there before is as it was."""

import errno
import fcntl
import os

import pytest
from safetensors import SafetensorError

from einsort_vla.atomic import (
    alone_in,
    atomic_file,
    check_apart,
    check_new,
    new_file,
    write_text,
    writing,
)
from einsort_vla.errors import CheckpointError, UsageError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_the_place_of_an_older_one_only_when_it_is_whole(tmp_path):
    path = tmp_path / "run.json"
    write_text(path, "first\r\n")

    def stop_half_way():
        with atomic_file(path) as partial:
            partial.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stop_half_way()
    assert path.read_bytes() == b"first\r\n"
    write_text(path, "second")
    assert path.read_text() == "second"
    assert names(tmp_path) == ["run.json"]


def test_a_new_file_is_never_written_over(tmp_path):
    def write_while_another_does():
        with new_file(tmp_path / "patch") as partial:
            partial.write_text("mine")
            (tmp_path / "patch").write_text("theirs")

    with pytest.raises(CheckpointError, match="exists already"):
        write_while_another_does()
    assert (tmp_path / "patch").read_text() == "theirs"
    assert names(tmp_path) == ["patch"]


def test_names_that_cannot_be_written_to(tmp_path):
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    (tmp_path / "way").symlink_to("folder")
    with pytest.raises(CheckpointError, match=r"link is a dangling link \(to nowhere\)"):
        check_new(tmp_path / "link")
    with pytest.raises(CheckpointError, match="is a dangling link"):
        check_new(tmp_path / "loop")
    with pytest.raises(CheckpointError, match="missing is no folder; make it"):
        new_file(tmp_path / "missing" / "patch").__enter__()
    with pytest.raises(UsageError, match="way is the source itself; write elsewhere"):
        check_apart(tmp_path / "way", tmp_path / "folder")
    for new in ("folder/deep/er", "way/new", "folder/../way/new"):
        with pytest.raises(UsageError, match="which is read; write elsewhere"):
            check_apart(tmp_path / new, tmp_path / "folder")
    with pytest.raises(UsageError, match="which is read, lies in"):
        check_apart(tmp_path, tmp_path / "way")
    check_apart(tmp_path / "folder2", tmp_path / "folder")


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with alone_in(tmp_path, "never said"):
        assert "has no locks: make sure that nothing else writes there" in caplog.text


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "full"), "there is no room for .*/patch: make some"),
        (SafetensorError("I/O error: full (os error 28)"), "there is no room for .*/patch: make"),
        (OSError(errno.EROFS, "", "FOLDER/.patch.partial"), r"/patch cannot be written: Rea"),
        (
            PermissionError(errno.EACCES, "", "FOLDER/.patch.partial"),
            r"/patch cannot be written: ",
        ),
    ],
)
def test_a_refusal_to_write_names_the_file(tmp_path, error, message):
    if isinstance(error, OSError) and error.filename:
        error.filename = error.filename.replace("FOLDER", str(tmp_path))
    with pytest.raises(CheckpointError, match=message), writing(tmp_path / "patch"):
        raise error


def test_what_is_only_read_is_no_fault_of_the_file_that_is_written(tmp_path):
    with pytest.raises(FileNotFoundError), writing(tmp_path / "patch"):
        raise FileNotFoundError(errno.ENOENT, "", str(tmp_path / "patches"))
