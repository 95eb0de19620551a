"""What is written is whole or not there, and what was there before is as it was."""

import pytest

from einsort_vla.atomic import atomic_file, atomic_folder, resumable_folder, write_text
from einsort_vla.errors import CheckpointError


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


@pytest.mark.parametrize("make", [atomic_folder, resumable_folder])
def test_a_folder_is_never_written_over(tmp_path, make):

    def write_while_another_does():
        with make(tmp_path / "new") as partial:
            (partial / "weights").write_bytes(b"mine")
            (tmp_path / "new").mkdir()
            (tmp_path / "new" / "weights").write_bytes(b"theirs")

    with pytest.raises(CheckpointError, match="exists already"):
        write_while_another_does()
    assert (tmp_path / "new" / "weights").read_bytes() == b"theirs"
    assert names(tmp_path) == ["new"]
    with make(tmp_path / "other") as partial:
        (partial / "deep").mkdir()
        (partial / "deep" / "weights").write_bytes(b"mine")
    assert (tmp_path / "other" / "deep" / "weights").read_bytes() == b"mine"


def test_only_a_resumable_folder_is_gone_on_with(tmp_path):
    def stop_half_way(make):
        with make(tmp_path / "new") as partial:
            (partial / "done").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_half_way(atomic_folder)
    assert names(tmp_path) == []
    with pytest.raises(KeyboardInterrupt):
        stop_half_way(resumable_folder)
    with resumable_folder(tmp_path / "new") as partial:
        assert names(partial) == ["done"]
    assert names(tmp_path) == ["new"]
