"""A safetensors file of others is read within bounds, into memory of its own, or refused."""

import json
import os
import struct

import pytest
import torch
from safetensors.torch import save_file

from einsort_vla.errors import CheckpointError
from einsort_vla.tensors import DTYPES, is_finite, open_tensors


def put(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(shape, start, stop, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def test_every_type_comes_back_and_later_writes_do_not_reach_it(tmp_path):
    own = {name: torch.ones(3, 5).to(dtype) for name, dtype in DTYPES.items()}
    own |= {"one": torch.tensor(7.0), "none": torch.zeros(0, 4)}
    save_file(own, tmp_path / "a", {"of": "mine"})
    file = open_tensors(tmp_path / "a")
    found = file.read_all()
    with (tmp_path / "a").open("r+b") as written:  # in place, as `cp` does
        written.seek(file.data_start)
        written.write(bytes(os.path.getsize(tmp_path / "a") - file.data_start))
    assert file.metadata == {"of": "mine"}
    assert found.keys() == own.keys()
    for name, tensor in found.items():
        assert (tensor.dtype, tensor.shape) == (own[name].dtype, own[name].shape)
        assert torch.equal(tensor.float(), own[name].float())
    assert not is_finite(torch.tensor([1.0, torch.nan]).to(torch.float8_e5m2))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"[" * 10**5, "the header of"),
        (b'{"a": "\xe9"}', "the header of"),
        ({"a": entry([2**60, 0], 0, 0)}, r"a is damaged: Expected `int` <="),
        ({"a": entry([2**30, 2**30, 0], 0, 0)}, "a has the shape"),
        ({"a": entry([1] * 9, 0, 4)}, "Expected `array` of length <= 8"),
        ({"a": entry([True], 0, 4)}, "got `bool`"),
        ({"a": entry([-1], 0, 4)}, "Expected `int` >= 0"),
        ({"a": entry([1], -4, 0)}, "Expected `int` >= 0"),
        ({"a": entry([1], 0, 8)}, "in 8 bytes"),
        ({"a": entry([1], 0, 4, "F24")}, "'F24', which does not exist"),
        ({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, "b begins at byte"),
        ({"a": entry([1], 4, 8)}, "a begins at byte"),
        ({"a": entry([2], 0, 8)}, "its header promises"),
        ({"a\x1b[2J": entry([1], 0, 4)}, r"a tensor is named 'a\\x1b"),
        ({"a": entry([1], 0, 4) | {"more": 1}}, "unknown field `more`"),
        ({"__metadata__": {"a": 1}}, "its metadata is damaged"),
    ],
)
def test_headers_that_lie(tmp_path, header, message):
    with pytest.raises(CheckpointError, match=message):
        open_tensors(put(tmp_path / "a", header, bytes(4)))


def test_what_is_no_safetensors_file(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("gone")
    (tmp_path / "pointer").write_text("version https://git-lfs.github.com/spec/v1\nsize 1\n")
    (tmp_path / "page").write_text("<!doctype html>" * 9)
    (tmp_path / "empty").touch()
    for name, message in [
        ("folder", "is a folder, not a file"),
        ("pipe", "is a pipe, not a file"),
        ("link", "is a dangling link"),
        ("pointer", "is a Git-LFS pointer.*git lfs pull"),
        ("page", "is no safetensors"),
        ("empty", "it is empty"),
        ("missing", "does not exist"),
    ]:
        with pytest.raises(CheckpointError, match=message):
            open_tensors(tmp_path / name)
    unknown = put(tmp_path / "wide", {"a": entry([1], 0, 8, "U64")}, bytes(8))
    with pytest.raises(CheckpointError, match="U64, which is not read"):
        open_tensors(unknown).read("a")
