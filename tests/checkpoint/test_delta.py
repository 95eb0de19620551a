"""A patch makes the new folder, whatever lies in both, or is refused before anything is written."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from einsort_vla.checkpoint import apply_patch, manifest, write_patch
from einsort_vla.errors import CheckpointError

FILE = "model.safetensors"
RUNS, DATA = f"{FILE}:runs", f"{FILE}:data"


@pytest.fixture
def folders(tmp_path):
    """Two folders with weights and side files that are not what their names say."""
    for k, name in enumerate(("old", "new")):
        folder = tmp_path / name
        (folder / "sub").mkdir(parents=True)
        tensors = {"a": torch.arange(20000.0), "b": torch.full((9000,), float(k))}
        save_file(tensors, folder / FILE)
        (folder / "adapter.safetensors").write_text(f"version https://git-lfs {k}\n")
        (folder / "none.safetensors").write_bytes(b"x" * (1 - k))
        (folder / "sub" / "notes.txt").write_text("the same")
        (folder / "README.md").write_bytes(b"caf\xe9" * k)
        manifest.write(folder)
    return tmp_path / "old", tmp_path / "new"


def test_side_files_that_cannot_be_parsed_are_bytes(folders, tmp_path):
    old, new = folders
    write_patch(old, new, tmp_path / "patch")
    assert (tmp_path / "patch").stat().st_size < (new / FILE).stat().st_size / 2
    apply_patch(old, tmp_path / "patch", tmp_path / "made")
    files = {p.relative_to(new): p.read_bytes() for p in new.rglob("*") if p.is_file()}
    made = tmp_path / "made"
    assert {p.relative_to(made): p.read_bytes() for p in made.rglob("*") if p.is_file()} == files


def set_run(row, column, value):
    return lambda t, m: t[RUNS].__setitem__((row, column), value)


def in_json(key, change):
    def make(tensors, metadata):
        content = json.loads(metadata[key])
        change(content)
        metadata[key] = json.dumps(content)

    return make


def copied_often(tensors, metadata):
    n, times = 50000, 10**5
    runs = [[0, k * n, n] for k in range(times)]
    tensors |= {RUNS: torch.tensor(runs), DATA: torch.zeros(0, dtype=torch.uint8)}
    in_json("sizes", lambda sizes: sizes.update({FILE: n * times}))(tensors, metadata)


def outside(tensors, metadata):
    name = "../made.txt"
    in_json("manifest", lambda m: m["files"].update({name: "0" * 64}))(tensors, metadata)
    in_json("sizes", lambda sizes: sizes.update({name: 1}))(tensors, metadata)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_run(0, 0, 2**40), "damaged: the run"),
        (set_run(0, 0, -7), "damaged: the run"),
        (set_run(0, 1, 1), "damaged: the run"),
        (set_run(0, 2, 0), "damaged: the run"),
        (set_run(0, 2, 2**62), "damaged: the run"),
        (copied_often, "of the [0-9]+ old ones"),
        (outside, "'../made.txt', which is not allowed"),
        (in_json("sizes", lambda sizes: sizes.update({FILE: 2**49})), "bytes of 562949953421312"),
        (in_json("sizes", lambda sizes: sizes.pop(FILE)), "has no size or no digest"),
        (in_json("sizes", lambda sizes: sizes.update({FILE: -1})), ">= 0"),
        (lambda t, m: t.pop(DATA), "it lacks model.safetensors:data"),
        (lambda t, m: t.update({DATA: t[DATA][1:].clone()}), "of [0-9]+ new ones"),
        (lambda t, m: t.update({RUNS: t[RUNS].int()}), "runs is I32"),
        (lambda t, m: t.update(more=torch.zeros(1)), "more is of no file"),
        (lambda t, m: m.pop("manifest"), "missing required field `manifest`"),
        (lambda t, m: m.update(manifest="[" * 10**5), "the manifest in it is damaged"),
    ],
)
def test_patches_that_lie(folders, tmp_path, change, message):
    old, new = folders
    write_patch(old, new, tmp_path / "patch")
    with safe_open(tmp_path / "patch", "pt") as file:
        metadata = file.metadata()
    tensors = load_file(tmp_path / "patch")
    change(tensors, metadata)
    save_file(tensors, tmp_path / "patch", metadata)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CheckpointError, match=message):
        apply_patch(old, tmp_path / "patch", tmp_path / "made")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_link_out_of_a_folder_is_in_no_patch_and_no_manifest(folders, tmp_path):
    old, new = folders
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("mine")
    (new / "README.md").unlink()
    (new / "README.md").symlink_to(tmp_path / "secret" / "key")
    with pytest.raises(CheckpointError, match=r"README\.md is a link that leads out"):
        write_patch(old, new, tmp_path / "patch")
    assert not (tmp_path / "patch").exists()
    (new / "notes").symlink_to(tmp_path / "secret" / "key")
    with pytest.raises(CheckpointError, match="notes is a link that leads out"):
        manifest.describe(new)
