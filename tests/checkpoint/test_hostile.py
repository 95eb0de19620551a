"""Compressed folders with right fingerprints and wrong content end in one error of ours."""

import json
import zlib

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from einsort_vla.checkpoint import (
    Checkpoint,
    DenseFolder,
    compress_folder,
    manifest,
    read,
    read_folder,
    write,
)
from einsort_vla.codec import (
    Codec,
    Curve,
    Local,
    Lossless,
    Network,
    Scalar,
    encode,
)
from einsort_vla.errors import CheckpointError
from einsort_vla.plan import Plan, planned

WEIGHTS, SHAPE = "model.safetensors", (48, 40)
SPECS = {
    "curve": Curve(2.0),
    "scalar": Scalar(3),
    "network": Network(2, slices=4, storage="index"),
    "scaled": Network(2, slices=4, column_scaled=True),
    "local": Local(2),
}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A folder with a matrix of each form."""
    folder = tmp_path_factory.mktemp("hostile")
    weight = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)).bfloat16().float()
    specs = SPECS | {"lossless": Lossless.menu(weight)[0]}
    coded = {f"{name}.weight": encode(weight, spec) for name, spec in specs.items()}
    plan = {f"{name}.weight": planned(spec, SHAPE, 0.1) for name, spec in specs.items()}
    content = Checkpoint(Plan(Codec("curve"), 0.0, plan), coded, {"bias": torch.ones(3)})
    write(folder / WEIGHTS, content)
    (folder / "config.json").write_text('{"type": "einsort_smolvla"}')
    return folder


@pytest.fixture
def rewrite(original, tmp_path):
    """Writes a copy after a change of (tensors, metadata, plan), with right fingerprints."""

    def make(change):
        with safe_open(original / WEIGHTS, "pt") as file:
            metadata = file.metadata()
        tensors, plan = load_file(original / WEIGHTS), json.loads(metadata["plan"])
        change(tensors, metadata, plan)
        metadata["plan"] = metadata.pop("text", json.dumps(plan))
        save_file(tensors, tmp_path / WEIGHTS, metadata)
        (tmp_path / "config.json").write_bytes((original / "config.json").read_bytes())
        manifest.write(tmp_path)
        return tmp_path

    return make


def in_plan(name, **change):
    return lambda t, m, p: p["tensors"][f"{name}.weight"].update(change)


def in_spec(name, **change):
    return lambda t, m, p: p["tensors"][f"{name}.weight"]["spec"].update(change)


def in_tensor(name, value):
    return lambda t, m, p: t[name].fill_(value)


def in_metadata(**change):
    return lambda t, m, p: m.update(change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, m, p: m.pop("calibrated"), "missing required field `calibrated`"),
        (in_metadata(calibrated="1"), "calibrated"),
        (in_metadata(dropped='["a"]'), "dropped in its metadata is damaged"),
        (in_metadata(dropped='{"bias": "unused"}'), "holds bias, which is coded or dropped"),
        (in_metadata(source_sha256="0x"), "source_sha256"),
        (in_metadata(note="hello"), "unknown field `note`"),
        (in_metadata(text='{"a":' * 10**5), "the plan in its metadata is damaged"),
        (lambda t, m, p: p.update(tensors={}), "of length >= 1"),
        (lambda t, m, p: p.update(rate_requested="half"), "Expected `float`, got `str`"),
        (in_plan("curve", distortion=None), "curve.weight is damaged: Expected `float`"),
        (in_plan("curve", shape=[0, 40]), "Expected `int` >= 1"),
        (in_plan("curve", shape=[40, 48]), "curve.weight_scale is U8 of shape"),
        (in_plan("network", shape=[2**30, 2**30]), "there can be"),
        (in_plan("curve", bits=3), "unknown field `bits`"),
        (in_plan("local", spec={"form": "../os"}), "unknown codec form"),
        (in_spec("curve", rotated=0), "Expected `bool`, got `int`"),
        (in_spec("curve", device="cuda"), "unknown parameter of curve 'device'"),
        (in_spec("scalar", bits=10**9), "scalar takes 2 to 15 bits"),
        (in_spec("network", slices=2**30), "would pad a matrix"),
        (in_spec("network", power=1e-9), "power of a network"),
        (in_spec("local", d=2**14), "local operators need"),
        (in_spec("lossless", exponent_bytes=-1), "1 byte or more"),
        (in_tensor("scalar.weight_indices", 255), "scalar.weight is damaged: an index is 7"),
        (in_tensor("network.weight_order", 0), "is no permutation"),
        (in_tensor("network.weight_gauge_rows", 255), "gauge_rows"),
        (in_tensor("scaled.weight_column_scale", 0), "divided by 0"),
        (in_tensor("local.weight_operators", 3e38), "add up to more"),
        (in_tensor("lossless.weight_lengths", -2), "lengths of its blocks"),
        (in_tensor("lossless.weight_exponents", 255), "cannot be inflated|does not hold"),
        (in_tensor("bias", torch.nan), "bias is damaged: it holds NaN"),
    ],
)  # fmt: skip
def test_a_maker_who_computes_the_fingerprints_is_refused(rewrite, change, message):
    with pytest.raises(CheckpointError, match=message):
        read_folder(rewrite(change))


def test_no_more_is_inflated_than_there_are_weights(rewrite):
    coder = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    stream = coder.compress(bytes(2**26)) + coder.flush()

    def bomb(tensors, metadata, plan):
        tensors["lossless.weight_exponents"] = torch.frombuffer(
            bytearray(stream), dtype=torch.uint8
        )
        tensors["lossless.weight_lengths"] = torch.tensor([len(stream)], dtype=torch.int32)
        in_spec("lossless", exponent_bytes=len(stream))(tensors, metadata, plan)

    with pytest.raises(CheckpointError, match="does not hold the 1920 of its weights"):
        read_folder(rewrite(bomb))


def test_a_plan_of_next_to_no_bits_is_refused():
    few = {"a.weight": planned(Network(1, scope="none", sign_split=False), (4096, 4096), 1.0)}
    with pytest.raises(CheckpointError, match="bits a weight; at least"):
        Plan.from_dict(Plan(Codec("network"), 0.9, few).as_dict())


def test_a_plan_that_no_reader_takes_is_not_coded(tiny_policy_folder, tmp_path):
    dense = DenseFolder(tiny_policy_folder)
    code = Scalar(3)
    own = {name: planned(code, shape, torch.nan) for name, shape in dense.matrices.items()}
    with pytest.raises(CheckpointError, match=r"Expected `float` >= 0.0|finite"):
        compress_folder(dense, tmp_path / "new", Plan(Codec("scalar"), 0.5, own))
    assert not list(tmp_path.glob("new*"))


def test_loaded_tensors_outlive_their_file(original, rewrite):
    folder = rewrite(lambda t, m, p: None)
    found = read(folder / WEIGHTS)
    kept = {n: {k: t.clone() for k, t in c.parts.items()} for n, c in found.coded.items()}
    with (folder / WEIGHTS).open("r+b") as file:
        file.write(bytes((folder / WEIGHTS).stat().st_size))
    for name, parts in kept.items():
        assert all(torch.equal(found.coded[name].parts[k], t) for k, t in parts.items())
    assert torch.equal(found.dense["bias"], torch.ones(3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "missing required field `files`"),
        ('{"files": []}', "Expected `object`"),
        ('{"files": {"a": 1}}', "Expected `str`"),
        ('{"files": {"a": "xyz"}}', "matching regex"),
        ("[" * 10**5, "is damaged"),
    ],
)
def test_damaged_manifests(original, tmp_path, text, message):
    (tmp_path / manifest.MANIFEST).write_text(text)
    with pytest.raises(CheckpointError, match=message):
        manifest.check(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/../b", "/a", "a//b", "a\\b", "a\0", "\x1b[0m", "x" * 300, "\ud800", "a/"],
)
def test_names_that_no_manifest_may_have(tmp_path, name):
    text = json.dumps({"files": {name: "0" * 64}})
    (tmp_path / manifest.MANIFEST).write_text(text)
    with pytest.raises(CheckpointError, match=r"not allowed|is damaged"):
        manifest.check(tmp_path)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "f").write_text("")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "sub").symlink_to(tmp_path / "outside")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    (tmp_path / "own" / "f").symlink_to(tmp_path / "outside" / "f")
    for name in ("sub/f", "f"):
        (tmp_path / "own" / manifest.MANIFEST).write_text(json.dumps({"files": {name: empty}}))
        with pytest.raises(CheckpointError, match="leads out of the folder"):
            manifest.check(tmp_path / "own")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 10**5, "config.json is damaged: it is nested too deeply"),
        (b'{"type": "\xe9"}', "is not UTF-8: byte 0xe9"),
        (b"[]", "holds no JSON object"),
        (b'{"type": 1}', "names no policy type"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ],
)
def test_damaged_configs(tiny_policy_folder, content, message):
    (tiny_policy_folder / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        DenseFolder(tiny_policy_folder)


@pytest.mark.parametrize("shard", ["../model.safetensors", "/etc/passwd", "", "a\\b", "sub/a"])
def test_an_index_names_files_of_its_folder_only(tiny_policy_folder, shard):
    (tiny_policy_folder / WEIGHTS).unlink()
    index = tiny_policy_folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(CheckpointError, match="which is not in the folder"):
        DenseFolder(tiny_policy_folder)
