"""What travels with a policy, what changes while it is read, and what is written when killed."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from einsort_vla.checkpoint import DenseFolder, apply_patch, compress_folder, write_patch
from einsort_vla.codec import Codec
from einsort_vla.errors import CheckpointError, UsageError
from tests.compressing import compress, plan

WEIGHTS = "model.safetensors"


def contents(folder):
    """Every file by its name, with its bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def refused(source, destination, message, kind=CheckpointError):
    before = sorted(destination.parent.iterdir())
    with pytest.raises(kind, match=message):
        compress(source, destination)
    assert sorted(destination.parent.iterdir()) == before


def test_other_forms_of_the_weights_stay_behind_and_are_named(tiny_policy_folder, tmp_path):
    weights = load_file(tiny_policy_folder / WEIGHTS)
    state = {"observation.state.mean": torch.zeros(6)}
    left = (
        "model.fp16.safetensors", "pytorch_model-00001-of-00002.bin", "flax_model.msgpack",
        "pytorch_model.bin.index.json", "last.ckpt", "exported.ONNX", "q4.gguf", "vlm/optimizer.pt",
    )  # fmt: skip
    travels = (
        "policy_preprocessor_step_3_normalizer_processor.safetensors", "modeling_own.py",
        "vlm/vocab.bin", "vlm/deep/er/merges.txt", "[bold]notes[/bold].txt", "zwölf.txt",
    )  # fmt: skip
    for name in (*left, *travels):
        (tiny_policy_folder / name).parent.mkdir(parents=True, exist_ok=True)
        (tiny_policy_folder / name).write_text("import os; os.abort()")
    save_file(state, tiny_policy_folder / travels[0])
    save_file({"extra": torch.zeros(4)}, tiny_policy_folder / "extra.safetensors")
    save_file(dict(list(weights.items())[:1]), tiny_policy_folder / "renamed.safetensors")
    (tiny_policy_folder / "checkpoint-20").mkdir()
    (tiny_policy_folder / "checkpoint-20" / WEIGHTS).touch()
    (tiny_policy_folder / "checkpoint-last").symlink_to("checkpoint-20")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:a\nsize 1\n"
    (tiny_policy_folder / "demo.mp4").write_text(pointer)
    (tiny_policy_folder / "video.mp4").write_bytes(bytes(2**24 + 1))
    summary = compress(tiny_policy_folder, tmp_path / "new")
    ours = {WEIGHTS, "config.json", "README.md", "einsort_manifest.json"}
    brought = {"policy_preprocessor.json", "vlm/tokenizer.json", "demo.mp4", "video.mp4"}
    brought |= {*travels, "extra.safetensors"}
    assert contents(tmp_path / "new").keys() == ours | brought
    told = "\n".join(summary.notes)
    left_out = told.splitlines()[0]
    assert left_out.startswith("Left out, as other forms of the weights")
    for name in (*left, "renamed.safetensors", "checkpoint-20/", "checkpoint-last"):
        assert name in left_out
    assert "Copied although large: video.mp4 (16.8 MB)." in told
    assert "only pointers of Git-LFS" in told
    assert "demo.mp4." in told
    card = (tmp_path / "new" / "README.md").read_text()
    assert r"pytorch\_model-00001-of-00002.bin" in card


def test_links_lead_nowhere_but_to_the_hubs_own_blobs(tiny_policy_folder, tmp_path):
    hub = tmp_path / "models--a--b"
    snapshot = hub / "snapshots" / "123"
    (hub / "blobs").mkdir(parents=True)
    for k, (name, content) in enumerate(contents(tiny_policy_folder).items()):
        (hub / "blobs" / str(k)).write_bytes(content)
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(hub / "blobs" / str(k))
    compress(snapshot, tmp_path / "from_hub")
    (tiny_policy_folder / "inside.txt").symlink_to("policy_preprocessor.json")
    compress(tiny_policy_folder, tmp_path / "new")
    assert (tmp_path / "new" / "inside.txt").read_text() == "{}"
    assert not (tmp_path / "new" / "inside.txt").is_symlink()
    secret = tmp_path / "secret"
    secret.write_text("of this machine")
    cases = {
        "leads out of": secret,
        "is a link to what is a folder": "vlm",
        "is a dangling link": "nowhere",
        "is a dangling link ": "odd",  # to itself
    }
    for message, target in cases.items():
        for place in (tiny_policy_folder / "odd", snapshot / "odd"):
            place.symlink_to(target)
            refused(place.parent, tmp_path / "other", message.strip())
            place.unlink()
    (snapshot / WEIGHTS).unlink()
    (snapshot / WEIGHTS).symlink_to("../../blobs/none")
    refused(snapshot, tmp_path / "other", rf"{WEIGHTS} is a dangling link \(to ../../blobs/none\)")
    weights = tiny_policy_folder / WEIGHTS
    weights.rename(tmp_path / "elsewhere.safetensors")
    weights.symlink_to(tmp_path / "elsewhere.safetensors")
    refused(tiny_policy_folder, tmp_path / "other", f"{WEIGHTS} is a link that leads out of")


def test_what_is_no_file_and_names_that_are_no_text(tiny_policy_folder, tmp_path):
    os.mkfifo(tiny_policy_folder / "odd")
    refused(tiny_policy_folder, tmp_path / "new", "odd is a pipe, not a file")
    (tiny_policy_folder / "odd").unlink()
    for name, said in (
        (b"two\nlines", r"two\\nlines"), (b"\xff\xfe", r"\\udcff\\udcfe"), (b"a\\b", r"a\\b"),
    ):  # fmt: skip
        path = Path(os.fsdecode(os.fsencode(tiny_policy_folder) + b"/" + name))
        path.touch()
        refused(
            tiny_policy_folder, tmp_path / "new", f"a file that no copy may have: {said}. Rename it"
        )
        path.unlink()
    (tiny_policy_folder / WEIGHTS).rename(tmp_path / "moved")
    os.mkfifo(tiny_policy_folder / WEIGHTS)
    refused(tiny_policy_folder, tmp_path / "new", f"{WEIGHTS} is a pipe")


def test_nothing_is_written_into_what_is_read(tiny_policy_folder, tmp_path):
    (tmp_path / "way").symlink_to(tiny_policy_folder)
    for place in (tiny_policy_folder / "new", tmp_path / "way" / "vlm" / "new"):
        refused(tiny_policy_folder, place, "lies in .*dense, which is read", UsageError)
    compress(tiny_policy_folder, tmp_path / "old")
    compress(tiny_policy_folder, tmp_path / "other", 0.7)
    with pytest.raises(UsageError, match="lies in"):
        write_patch(tmp_path / "old", tmp_path / "other", tmp_path / "other" / "patch")
    write_patch(tmp_path / "old", tmp_path / "other", tmp_path / "patch")
    with pytest.raises(UsageError, match="lies in"):
        apply_patch(tmp_path / "old", tmp_path / "patch", tmp_path / "old" / "new")
    refused(tiny_policy_folder, tmp_path / "patch", "patch exists already")


def test_copies_of_read_only_files_can_be_finished(tiny_policy_folder, tmp_path):
    for path in sorted(tiny_policy_folder.rglob("*"), reverse=True):
        path.chmod(0o555 if path.is_dir() else 0o444)
    compress(tiny_policy_folder, tmp_path / "new")
    assert all(path.stat().st_mode & 0o200 for path in (tmp_path / "new").rglob("*"))


def _rewrite_in_place(folder):
    path, content = folder / WEIGHTS, (folder / WEIGHTS).read_bytes()
    seen = path.stat()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))  # as a careless copy may


@pytest.mark.parametrize(
    "change",
    [
        _rewrite_in_place,
        lambda folder: (folder / WEIGHTS).rename(folder.parent / "moved"),
        lambda folder: (folder / "config.json").write_text('{"type": "smolvla", "chunk_size": 9}'),
        lambda folder: (folder / "vlm" / "tokenizer.json").write_text("[]"),
        lambda folder: (folder / "vlm" / "added_tokens.json").touch(),
        lambda folder: (folder / "policy_preprocessor.json").unlink(),
    ],
)
def test_a_source_that_changes_meanwhile_is_refused(tiny_policy_folder, tmp_path, change):
    def at_the_end(done, total):
        if done == total:
            change(tiny_policy_folder)

    with pytest.raises(CheckpointError, match=r"taken away while|cannot be made: .*No such file"):
        compress(tiny_policy_folder, tmp_path / "new", on_progress=at_the_end)
    assert not (tmp_path / "new").exists()


def test_a_source_that_is_only_touched_is_read_again_and_taken(tiny_policy_folder, tmp_path):
    compress(tiny_policy_folder, tmp_path / "straight")

    def touch(done, total):
        (tiny_policy_folder / WEIGHTS).touch()
        shutil.copy(tiny_policy_folder / WEIGHTS, tmp_path / "copy")
        os.replace(tmp_path / "copy", tiny_policy_folder / WEIGHTS)

    compress(tiny_policy_folder, tmp_path / "new", on_progress=touch)
    assert contents(tmp_path / "new") == contents(tmp_path / "straight")


def test_an_error_at_the_end_keeps_the_coded_weights(tiny_policy_folder, tmp_path, monkeypatch):
    compress(tiny_policy_folder, tmp_path / "straight")
    preprocessor = tiny_policy_folder / "policy_preprocessor.json"
    preprocessor.write_text("{")
    with pytest.raises(CheckpointError, match=r"is damaged.* is kept in .*new\.partial; the sa"):
        compress(tiny_policy_folder, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    preprocessor.write_text("{}")
    monkeypatch.setattr("einsort_vla.checkpoint.folder.encode", None)  # all is coded
    compress(tiny_policy_folder, tmp_path / "new")
    assert contents(tmp_path / "new") == contents(tmp_path / "straight")
    assert not (tmp_path / "new.partial").exists()


def test_another_calibration_begins_anew(tiny_policy_folder, tmp_path):
    from einsort_vla.plan import LayerStatistics

    def statistics(scale):
        found = LayerStatistics(DenseFolder(tiny_policy_folder).sha256)
        generator = torch.Generator().manual_seed(scale)
        for name, (_, n_inputs) in DenseFolder(tiny_policy_folder).matrices.items():
            found.add(name, torch.randn(2 * n_inputs, n_inputs, generator=generator))
        return found

    def stop(done, total):
        raise KeyboardInterrupt

    own, dense = plan(tiny_policy_folder, 0.8), DenseFolder(tiny_policy_folder)
    with pytest.raises(KeyboardInterrupt):
        compress_folder(dense, tmp_path / "new", own, statistics(1), stop)
    compress_folder(dense, tmp_path / "new", own, statistics(2))
    compress_folder(dense, tmp_path / "straight", own, statistics(2))
    assert contents(tmp_path / "new") == contents(tmp_path / "straight")


def command(*arguments):
    return subprocess.Popen(
        [sys.executable, "-c", "from einsort_vla.cli import main; main()", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def seconds_of(*arguments):
    start = time.monotonic()
    process = command(*arguments)
    said, _ = process.communicate()
    assert process.returncode == 0, said
    return time.monotonic() - start


def kill_and_repeat(chance, seconds, destination, *arguments):
    """Kill a command at some moment; the same one afterwards ends whole."""
    process = command(*arguments)
    time.sleep(chance.uniform(0, seconds))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    if not destination.exists():
        said, _ = (again := command(*arguments)).communicate()
        assert again.returncode == 0, said
    found = contents(destination)
    assert not list(destination.parent.glob(f"*{destination.name}*.partial"))
    shutil.rmtree(destination)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "n_kills"), [("compress", 25), ("patch", 20), ("export", 5)])
def test_kills_at_any_moment(tmp_path, reference_policy, kind, n_kills):
    is_export = kind == "export"  # of made-up weights there is nothing to export
    source = reference_policy if is_export else made_up_policy(tmp_path / "dense")
    new, old, other = (tmp_path / name for name in ("new", "old", "other"))
    compress(source, old, 0.75, Codec("curve"))
    request = ("compress", source, new, "--rate", 0.5)
    if kind == "patch":
        compress(source, other, 0.8)
        write_patch(old, other, tmp_path / "update")
        request = ("patch", old, tmp_path / "update", new)
    elif is_export:
        request = ("export", old, new)
    seconds, chance = seconds_of(*request), random.Random(kind)
    expected = contents(new)
    shutil.rmtree(new)
    for _ in range(n_kills):
        assert kill_and_repeat(chance, seconds, new, *request) == expected


@pytest.mark.slow
def test_two_compressions_at_any_moment(tmp_path):
    source, chance = made_up_policy(tmp_path / "dense"), random.Random(0)
    new = tmp_path / "new"
    expected, seconds = {}, 0.0
    for rate in (0.5, 0.8):
        seconds = seconds_of("compress", source, new, "--rate", rate)
        expected[rate] = contents(new)
        shutil.rmtree(new)
    for _ in range(20):
        rates = chance.sample(list(expected), 2)
        processes = []
        for rate in rates:
            processes.append(command("compress", source, new, "--rate", rate))
            time.sleep(chance.uniform(0, seconds))
        said = [process.communicate()[0] for process in processes]
        codes = [process.returncode for process in processes]
        assert sorted(codes) == [0, 2], said
        assert (
            "another process is writing" in said[codes.index(2)]
            or "exists already" in said[codes.index(2)]
        )
        assert contents(new) == expected[rates[codes.index(0)]]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["dense", "new"]
        shutil.rmtree(new)


def made_up_policy(folder):
    """Some seconds of coding."""
    (folder / "vlm").mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    tensors = {
        f"model.l{k}.weight": torch.randn(512, 512, generator=generator).bfloat16()
        for k in range(16)
    }
    save_file(tensors, folder / WEIGHTS)
    (folder / "config.json").write_text('{"type": "smolvla"}')
    (folder / "policy_preprocessor.json").write_text("{}")
    (folder / "vlm" / "tokenizer.json").write_text("{}")
    return folder
