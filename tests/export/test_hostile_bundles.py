"""Bundles that were made to harm: with right fingerprints, they end in one error, unrun."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from einsort_vla.errors import CheckpointError
from einsort_vla.runtime import OnnxSession, commands, graph_file, open_bundle
from einsort_vla.runtime.bundle import write_sums
from einsort_vla.runtime.measure import at_most
from einsort_vla.runtime.samples import samples

SHAPE = [1, 4, 3]
TYPES = {"float32": TensorProto.FLOAT, "bool": TensorProto.BOOL}


def value(name, dtype="float32"):
    return {"name": name, "dtype": dtype, "shape": SHAPE}


def graph_of(described, nodes, *initializers):
    inputs, outputs = (
        [helper.make_tensor_value_info(v["name"], TYPES[v["dtype"]], v["shape"]) for v in values]
        for values in (described["inputs"], described["outputs"])
    )
    made = helper.make_graph(nodes, "graph", inputs, outputs, initializers)
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(made, opset_imports=opset, ir_version=10)


def external(location):
    """A tensor whose weights lie in another file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=1)
    for key, text in (("location", location), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=text)
    return tensor


@pytest.fixture
def bundle(tmp_path):
    """A whole one, without LeRobot: its graphs copy what they are given."""
    folder = tmp_path / "bundle"
    (folder / "graphs").mkdir(parents=True)
    (folder / "graphs" / "weights.bin").write_bytes(bytes(2048))
    layer = {
        "name": "layer", "spec": "curve bits=4.0", "bits_per_weight": 4.0, "shape": [64, 32],
        "bytes": 1024, "streams": [[0, 512], [512, 512]], "nodes": 1,
    }  # fmt: skip
    described = {
        "vision": {"inputs": [value("images")], "outputs": [value("embeddings")]},
        "prefix": {"inputs": [value("embeddings")], "outputs": [value("keys")]},
        "denoise_step": {"inputs": [value("noisy_actions")], "outputs": [value("velocity")]},
        "chunk": {"inputs": [value("images"), value("noise")], "outputs": [value("actions")]},
    }
    for name, facts in described.items():
        copy = helper.make_node("Identity", [facts["inputs"][-1]["name"]],
                                [facts["outputs"][0]["name"]])  # fmt: skip
        weights = [external("weights.bin")] if name == "chunk" else []
        onnx.save(graph_of(facts, [copy], *weights), folder / "graphs" / f"{name}.onnx")
    chunk = described.pop("chunk")
    manifest = {
        "format": "einsort-bundle", "version": 2,
        "source": {"weights_sha256": "0" * 64, "rate": 0.75, "kept_without_error": []},
        "policy": {
            "type": "smolvla", "cameras": ["camera"], "image_range": [-1.0, 1.0],
            "tokenizer_max_length": 8, "state_size": 0, "action_size": 2, "chunk_size": 4,
            "n_action_steps": 4, "n_steps": 2, "normalization": {},
        },
        "target": {"name": "cpu", "what": "any", "machine": None, "compute_capability": None,
                   "cuda": None},
        "batch": {"size": 1, "dynamic": False},
        "precision": {"onnx": "float32", "engines": None, "sums": "float32", "flow": "float32"},
        "versions": {"python": "3.12"}, "chunk": chunk,
        "parts": {name: facts | {"layers": [layer]} for name, facts in described.items()},
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    ones = np.ones((2, *SHAPE[1:]), np.float32)
    left = ones / 4  # each of the two steps takes half
    np.savez(folder / "samples.npz", images=ones, noise=ones, actions=left)
    write_sums(folder)
    return folder


def refused(folder, message):
    with pytest.raises(CheckpointError, match=message):
        open_bundle(folder)


def test_a_bundle_made_by_hand_passes(bundle):
    assert commands.verify(bundle, "onnx", (), lambda line: None) == 0
    assert len(list(samples(open_bundle(bundle)))) == 2


def test_manifests_that_ask_for_the_impossible(bundle):
    original = (bundle / "manifest.json").read_text()

    def changed(*places, to):
        manifest = json.loads(original)
        inner = manifest
        for place in places[:-1]:
            inner = inner[place]
        inner[places[-1]] = to
        (bundle / "manifest.json").write_text(json.dumps(manifest))
        write_sums(bundle)

    layer = ("parts", "prefix", "layers", 0)
    for place, value_, message in [
        (("batch", "size"), 500, r"batch\.size is 500, it must be 1 to 64"),
        (("batch", "size"), 2.0, r"batch\.size is 2\.0, not of type int"),
        (("batch", "more"), 1, "the field 'more' in batch is unknown"),
        (("policy", "n_steps"), 0, r"policy\.n_steps is 0, it must be 1 to 1000"),
        (("policy", "action_size"), 9, "does not fit the bundle: the policy has more actions"),
        (("parts", "prefix", "inputs", 0, "name"), "x", "prefix takes 'x', which nothing gives"),
        (("policy", "cameras"), "camera", r"policy\.cameras is 'camera', not a list"),
        ((*layer, "shape"), [4096, 4096], "claims 16777216 weights in 1024 of"),
        ((*layer, "bytes"), 2**35, "claims 2048 weights in 34359738368 of"),
        ((*layer, "streams"), [[2000, 100]], "ends behind the file of weights"),
        ((*layer, "nodes"), 10**8, "nodes is 100000000, it must be 1 to 1000"),
        ((*layer, "name"), "\x1b[2J", "holds characters that cannot be printed"),
        (("target", "machine"), "../../tmp", "must be 'x86_64' or 'aarch64'"),
        (("target", "compute_capability"), 89, "does not fit the bundle: engines need"),
        (("parts", "../x"), {"inputs": [value("a")], "outputs": [value("a")], "layers": []},
         "does not fit the bundle: its parts are"),
        (("chunk", "outputs"), [value("other")], "must have one shape"),
    ]:  # fmt: skip
        changed(*place, to=value_)
        refused(bundle, message)
    for text, message in [
        ("[" * 100_000, "nested too deeply"), ("[]", "it is a list, not an object"),
        (original.replace("0.75", "NaN"), "holds the number NaN"),
        (original.replace("0.75", "1e999"), "rate is not finite"),
        (original[:-1] + ', "version": 2}', "holds 'version' twice"),
        (" " * 2**23, "has more than 4194304 bytes"),
    ]:  # fmt: skip
        (bundle / "manifest.json").write_text(text)
        write_sums(bundle)
        refused(bundle, message)


def test_what_a_bundle_must_have(bundle):
    for name in ("graphs/chunk.onnx", "graphs/prefix.onnx", "samples.npz"):
        content = (bundle / name).read_bytes()
        (bundle / name).unlink()
        write_sums(bundle)
        refused(bundle, f"it has no {name}")
        (bundle / name).write_bytes(content)


def test_lists_of_files_that_name_others(bundle):
    sums = bundle / "SHA256SUMS"
    whole, zeros = sums.read_text(), "0" * 64
    for text in (
        whole + whole.splitlines(keepends=True)[0],  # twice
        whole.replace("samples.npz", "./samples.npz"),
        *(f"{whole}{zeros}  {name}\n" for name in ("/etc/hosts", "../x", "a\\b", "engines/x", "")),
        whole.replace("  ", " *"), whole[:-1], whole.upper(),
    ):  # fmt: skip
        sums.write_text(text)
        refused(bundle, "SHA256SUMS is damaged")
    sums.write_text(f"{whole}{zeros}  graphs\n")  # a folder
    refused(bundle, "graphs is missing")


def test_links_and_pipes_are_refused_and_nothing_is_written_through_them(bundle, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("as it was")
    for name, target in [
        ("engines", tmp_path), ("engines/verify-onnx.json", victim), ("processing", "/etc"),
        ("graphs/more.onnx", "/etc/hosts"),
    ]:  # fmt: skip
        path = bundle / name
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(target)
        with pytest.raises(CheckpointError, match=r"is a link, or no plain file.*cp -rL"):
            commands.verify(bundle, "onnx", (), lambda line: None)
        path.unlink()
        shutil.rmtree(bundle / "engines", ignore_errors=True)
    os.mkfifo(bundle / "pipe")
    refused(bundle, "pipe is a link, or no plain file")
    assert victim.read_text() == "as it was"


def test_samples_that_are_no_arrays_of_their_size(bundle):
    path, rows = bundle / "samples.npz", np.ones((2, *SHAPE[1:]), np.float32)
    good = {"images": rows, "noise": rows, "actions": rows}

    def lies(name, old, new):
        with zipfile.ZipFile(path) as archive:
            members = {n: archive.read(n) for n in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for n, content in members.items():
                archive.writestr(n, content.replace(old, new) if n == name else content)

    for write, message in [
        (lambda: np.savez_compressed(path, **good), "its arrays are compressed"),
        (lambda: np.savez(path, **good, more=rows), "'actions.npy, images.npy, more.npy"),
        (lambda: np.savez(path, **good | {"noise": np.array([{}])}), "an array is of type '|O'"),
        (lambda: np.savez(path, **good | {"noise": rows[:1]}), "the graphs take float32 of shape"),
        (lambda: np.savez(path, **good | {"noise": rows > 0}), "noise is bool of shape"),
        (lambda: np.savez(path, **{k: v[:0] for k, v in good.items()}), "has 0 bytes"),
        (lambda: (np.savez(path, **good), lies("noise.npy", b"(2, ", b"(9999, ")), "has 99 bytes"),
        (lambda: path.write_bytes(b"PK"), "not a zip file"),
    ]:  # fmt: skip
        write()
        write_sums(bundle)
        with pytest.raises(CheckpointError, match=r"samples\.npz is damaged: ") as error:
            list(samples(open_bundle(bundle)))
        assert message in str(error.value)


def test_graphs_may_refer_to_no_other_file_and_are_bounded(bundle, monkeypatch):
    monkeypatch.setattr(graph_file, "MAX_MESSAGES", 500)
    facts = {"inputs": [value("images")], "outputs": [value("embeddings")]}
    copy = helper.make_node("Identity", ["images"], ["embeddings"])
    path = bundle / "graphs" / "vision.onnx"
    hidden = helper.make_node("If", ["c"], ["x"])
    hidden.attribute.append(helper.make_attribute("then_branch", helper.make_graph(
        [], "inner", [], [], [external("/etc/passwd")])))  # fmt: skip
    based = external("weights.bin")
    based.external_data.add(key="basepath", value="/etc")
    deep = graph_of(facts, [])
    inner = deep.graph
    for _ in range(40):
        node = inner.node.add(op_type="If")
        inner = node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH).g
    for content, message in [
        (graph_of(facts, [copy], external("../manifest.json")), "refers to b'../manifest.json'"),
        (graph_of(facts, [copy, hidden]), "refers to b'/etc/passwd'"),
        (graph_of(facts, [copy], based), "refers to b'/etc' by b'basepath'"),
        (deep, "nested too deeply"),
        (b"\x3a\xd0\x0f" + b"\x0a\x00" * 1000, "has more than 500 entries"),
        (b"no graph", "is no ONNX file"),
        (b"", "has 0 bytes"),
    ]:
        path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
        write_sums(bundle)
        with pytest.raises(CheckpointError) as error:
            open_bundle(bundle)
        assert message in str(error.value)


def test_graphs_that_are_not_as_their_manifest_says(bundle):
    facts = {"inputs": [value("images")], "outputs": [value("embeddings")]}
    wide = [
        helper.make_node("Concat", ["images", "images"], ["embeddings"], axis=2),
    ]
    facts["outputs"][0]["shape"] = [1, 4, 6]
    other = {"inputs": [value("pictures")], "outputs": [value("embeddings")]}
    renamed = [helper.make_node("Identity", ["pictures"], ["embeddings"])]
    unknown = [helper.make_node("Steal", ["images"], ["embeddings"], domain="evil")]
    for model, message in [
        (graph_of(facts, wide), r"gives embeddings of shape \[1, 4, 6\], the manifest says"),
        (graph_of(other, renamed), r"ONNX Runtime cannot run .*vision"),
        (graph_of(facts, unknown), r"ONNX Runtime cannot open .*vision"),
    ]:
        onnx.save(model, bundle / "graphs" / "vision.onnx")
        write_sums(bundle)
        opened = open_bundle(bundle)
        with pytest.raises(CheckpointError, match=message):
            OnnxSession(opened).run("vision", next(samples(opened)))


@pytest.mark.skipif(sys.platform != "linux", reason="what holds a process to its memory")
def test_a_graph_gets_no_more_memory_than_the_bundle_explains(bundle):
    facts = {"inputs": [value("images")], "outputs": [value("embeddings")]}
    size = helper.make_tensor("size", TensorProto.INT64, [1], [2**30])  # of float32: 4 GiB
    greedy = [
        helper.make_node("ConstantOfShape", ["size"], ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0),
        helper.make_node("Add", ["images", "sum"], ["embeddings"]),
    ]
    onnx.save(graph_of(facts, greedy, size), bundle / "graphs" / "vision.onnx")
    write_sums(bundle)
    with pytest.raises(CheckpointError, match=r"ONNX Runtime cannot run .*vision"):
        commands.verify(bundle, "onnx", (), lambda line: None)
    with at_most(2**28), pytest.raises(MemoryError):
        np.empty(2**27)
    np.empty(2**27)  # the process has its freedom back


def test_engines_that_others_built_do_not_run_by_themselves(bundle):
    (bundle / "engines").mkdir()
    facts = {"seconds": 1.0, "layers": {}, "plugin_layers": [], "sha256": "0" * 64, "bytes": 1}
    receipt = {
        "bundle": "0" * 64, "builder": "b", "compute_capability": 89, "plugin": "0" * 64,
        "device": None,
        "parts": {p: {**facts, "file": f"{p}.engine"} for p in open_bundle(bundle).parts},
    }  # fmt: skip
    (bundle / "engines" / "receipt.json").write_text(json.dumps(receipt))
    said: list[str] = []
    commands.verify(bundle, "auto", (), said.append)
    assert said[0].startswith("The engines were not built here, so ONNX Runtime runs.")
    receipt["parts"]["vision"]["file"] = "../samples.npz"
    (bundle / "engines" / "receipt.json").write_text(json.dumps(receipt))
    with pytest.raises(CheckpointError, match="is damaged: it names other engines"):
        commands.verify(bundle, "auto", (), said.append)


def test_builders_do_not_look_for_modules_in_the_current_folder(bundle, tmp_path, monkeypatch):
    """`python -m` does, and a user may well stand in the bundle."""
    from einsort_vla.runtime import engine

    (bundle / "einsort_vla").mkdir()
    (bundle / "einsort_vla" / "__init__.py").write_text("raise SystemExit('stolen')")
    (bundle / "json.py").write_text("raise SystemExit('stolen')")
    monkeypatch.chdir(bundle)
    commands_: list[dict] = []
    real = subprocess.run

    def run(command, **options):
        commands_.append(options)
        result = real(command, **options)
        assert "stolen" not in result.stderr
        return result

    monkeypatch.setattr(engine.subprocess, "run", run)
    write_sums(bundle)
    with pytest.raises(Exception, match="no_such_builder could not build"):
        engine._build(open_bundle(Path()), "vision", "no_such_builder", Path("x"), tmp_path / "out")
    assert commands_
