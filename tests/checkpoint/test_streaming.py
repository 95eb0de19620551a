"""Shards, kills, full disks and damage: what reaches the disk is whole or is not taken for it."""

import errno
import json
import os
import random
import shutil
import subprocess

import pytest
import torch
from safetensors.torch import load_file, save_file

from einsort_vla.checkpoint import DenseFolder, compress_folder, read_folder
from einsort_vla.checkpoint import folder as folder_module
from einsort_vla.codec import decode
from einsort_vla.errors import CheckpointError, EinSortError
from tests.compressing import compress, plan

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture
def sharded(tiny_policy_folder):
    """The tiny policy in three shards."""
    tensors = load_file(tiny_policy_folder / WEIGHTS)
    names = sorted(tensors)
    shards = {f"model-0000{k + 1}-of-00003.safetensors": names[k::3] for k in range(3)}
    for shard, own in shards.items():
        save_file({name: tensors[name] for name in own}, tiny_policy_folder / shard)
    weight_map = {name: shard for shard, own in shards.items() for name in own}
    (tiny_policy_folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    (tiny_policy_folder / WEIGHTS).rename(tiny_policy_folder.parent / "whole.safetensors")
    return tiny_policy_folder


def test_shards_hold_the_same_policy_as_one_file(sharded, tmp_path):
    compress(sharded, tmp_path / "from_shards")
    for shard in sharded.glob("model*"):
        shard.unlink()
    (tmp_path / "whole.safetensors").rename(sharded / WEIGHTS)
    compress(sharded, tmp_path / "from_one")
    ours, theirs = (load_file(tmp_path / d / WEIGHTS) for d in ("from_shards", "from_one"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not list((tmp_path / "from_shards").glob("model-*"))


def test_bad_shards(sharded, tmp_path):
    shard = sharded / "model-00002-of-00003.safetensors"
    content = shard.read_bytes()
    shard.unlink()
    with pytest.raises(CheckpointError, match=r"lacks model-00002-of-00003.safetensors of its 3"):
        compress(sharded, tmp_path / "new")
    shard.write_bytes(content[:-1])
    with pytest.raises(CheckpointError, match="damaged or truncated"):
        compress(sharded, tmp_path / "new")
    shard.write_bytes((sharded / "model-00001-of-00003.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=r"00001-of-00003.safetensors and .* both hold"):
        compress(sharded, tmp_path / "new")
    shard.write_bytes(content)
    moved = {"model.first.bias": shard.name, "model.second.bias": shard.name}
    (sharded / INDEX).write_text(json.dumps({"weight_map": moved}))
    with pytest.raises(CheckpointError, match=r"says that model-00002-of-00003.safetensors holds"):
        compress(sharded, tmp_path / "new")
    (sharded / INDEX).write_text("{}")
    with pytest.raises(CheckpointError, match="has no weight_map"):
        compress(sharded, tmp_path / "new")
    assert not list(tmp_path.glob("new*"))


def test_a_killed_run_goes_on_where_it_was(tiny_policy_folder, tmp_path, monkeypatch):
    compress(tiny_policy_folder, tmp_path / "straight")

    def kill(done, total):
        raise KeyboardInterrupt  # as a kill, it runs none of our handlers

    with pytest.raises(KeyboardInterrupt):
        compress(tiny_policy_folder, tmp_path / "new", on_progress=kill)
    assert not (tmp_path / "new").exists()
    encoded = []
    encode = folder_module.encode
    monkeypatch.setattr(
        folder_module, "encode", lambda *given: encoded.append(given) or encode(*given)
    )
    compress(tiny_policy_folder, tmp_path / "new")
    assert len(encoded) == 1  # of two
    for name in ("straight", "new"):
        assert {p.name for p in (tmp_path / name).iterdir()} == {
            p.name for p in (tmp_path / "straight").iterdir()
        }
    straight, new = ((tmp_path / name / WEIGHTS).read_bytes() for name in ("straight", "new"))
    assert straight == new


def test_what_another_run_left_is_not_gone_on_with(tiny_policy_folder, tmp_path):
    def kill(done, total):
        raise KeyboardInterrupt

    other = plan(tiny_policy_folder, 0.8)
    with pytest.raises(KeyboardInterrupt):
        compress_folder(DenseFolder(tiny_policy_folder), tmp_path / "new", other, on_progress=kill)
    compress(tiny_policy_folder, tmp_path / "new")
    compress(tiny_policy_folder, tmp_path / "straight")
    new, straight = ((tmp_path / name / WEIGHTS).read_bytes() for name in ("new", "straight"))
    assert new == straight


def test_a_full_disk(tiny_policy_folder, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(CheckpointError, match="there is no room for"):
        compress(tiny_policy_folder, tmp_path / "new")
    assert not list(tmp_path.glob("new*"))


@pytest.mark.parametrize("room_kb", [4, 16, 24, 32, 1024])
def test_a_disk_that_is_really_full(tiny_policy_folder, tmp_path, room_kb):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={room_kb}k", "tmpfs", disk]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no permission to mount a tmpfs")
    try:
        (tiny_policy_folder / "notes.txt").write_bytes(bytes(8192))
        if room_kb < 1024:
            with pytest.raises(CheckpointError, match=r"no room for|No space left") as refusal:
                compress(tiny_policy_folder, disk / "new")
            assert not (disk / "new").exists()
            is_kept = "is kept in" in str(refusal.value)
            assert [path.name for path in disk.iterdir()] == ["new.partial"] * is_kept
            subprocess.run(["mount", "-o", "remount,size=1024k", disk], check=True)
        compress(tiny_policy_folder, disk / "new")
        assert read_folder(disk / "new").coded
        assert [path.name for path in disk.iterdir()] == ["new"]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_source_that_is_quantized_already(tiny_policy_folder, tmp_path):
    tensors = load_file(tiny_policy_folder / WEIGHTS)
    tensors["model.first.weight"] = tensors["model.first.weight"].to(torch.int8)
    save_file(tensors, tiny_policy_folder / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"quantized already: it holds model.first.weight"):
        compress(tiny_policy_folder, tmp_path / "new")
    assert not list(tmp_path.glob("new*"))


@pytest.mark.parametrize(
    "n_mutations", [100, pytest.param(2000, marks=pytest.mark.slow, id="2000")]
)
def test_no_damage_loads_wrong(tiny_policy_folder, tmp_path, n_mutations):
    """Flipped bits, cut and swapped bytes, in any file: refused with our error, or harmless."""
    compress(tiny_policy_folder, tmp_path / "good")
    expected = _content(tmp_path / "good")
    chance = random.Random(0)
    files = sorted(p for p in (tmp_path / "good").rglob("*") if p.is_file())
    refused = 0
    for _ in range(n_mutations):
        file = chance.choice([*files, tmp_path / "good" / WEIGHTS])
        before = file.read_bytes()
        file.write_bytes(_damage(before, chance))
        try:
            assert _content(tmp_path / "good") == expected
        except EinSortError:
            refused += 1
        file.write_bytes(before)
    assert refused > n_mutations / 2
    assert _content(tmp_path / "good") == expected


def _content(folder):
    found = read_folder(folder)
    weights = {name: decode(matrix) for name, matrix in found.coded.items()} | found.dense
    config = json.loads((folder / "config.json").read_text())
    return {name: t.float().numpy().tobytes() for name, t in weights.items()}, config


def _damage(content: bytes, chance: random.Random) -> bytes:
    kind, damaged = chance.choice(["flip", "cut", "swap", "zero"]), bytearray(content)
    place = chance.randrange(max(1, min(len(content), chance.choice([64, 4096, len(content)]))))
    if not content or kind == "cut":
        return content[:place]
    if kind == "flip":
        damaged[place] ^= 1 << chance.randrange(8)
    elif kind == "swap":
        other = chance.randrange(len(content))
        damaged[place], damaged[other] = damaged[other], damaged[place]
    else:
        damaged[place : place + 16] = bytes(len(damaged[place : place + 16]))
    return bytes(damaged)


def test_many_small_matrices_wait_for_the_disk_together(tmp_path, monkeypatch):
    """What the journal names is on the disk; a stopped run has named all that it wrote."""
    (tmp_path / "dense").mkdir()
    generator = torch.Generator().manual_seed(0)
    tensors = {f"model.{k}.weight": torch.randn(8, 8, generator=generator) for k in range(200)}
    save_file(tensors, tmp_path / "dense" / WEIGHTS)
    (tmp_path / "dense" / "config.json").write_text(json.dumps({"type": "act"}))
    waits, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: waits.append(file) or fsync(file))

    def stop(done, total):
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress(tmp_path / "dense", tmp_path / "new", on_progress=stop)
    journal = tmp_path / "new.partial" / "journal"
    assert len({line.split(".")[1] for line in journal.read_text().split()}) == 101
    compress(tmp_path / "dense", tmp_path / "new")
    assert len(read_folder(tmp_path / "new").coded) == 200
    assert len(waits) < 100
