"""The reference policy as a bundle: whole, near PyTorch, built into engines, audited."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

pytest.importorskip("lerobot")

from einsort_vla.codec import Codec, decode
from einsort_vla.errors import (
    CheckpointError,
    EngineError,
    MissingDependency,
    ShapeError,
    UsageError,
)
from einsort_vla.export import GraphOptions, export_bundle, find_target
from einsort_vla.export.functions import function_bodies
from einsort_vla.layers import CompressedLinear
from einsort_vla.lerobot import load_policy
from einsort_vla.runtime import OnnxSession, commands, open_bundle
from einsort_vla.runtime import onnx as onnx_session
from einsort_vla.runtime.audit import audit
from einsort_vla.runtime.bundle import SUMS, write_sums
from einsort_vla.runtime.engine import build_engines
from einsort_vla.runtime.manifest import CHUNK
from einsort_vla.runtime.measure import nearness
from einsort_vla.runtime.samples import samples
from tests.compressing import compress

OPTIONS = GraphOptions()


@pytest.fixture(scope="module")
def coded(reference_policy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("coded") / "policy"
    compress(reference_policy, folder, 0.75, Codec("curve"))
    return folder


class Changed:
    """A session with other actions."""

    def __init__(self, session, change):
        self.session, self.change = session, change

    def run(self, part, inputs):
        found = self.session.run(part, inputs)
        return {k: self.change(v) if k == "velocity" else v for k, v in found.items()}


@pytest.fixture(scope="module")
def exported(coded, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "bundle"
    export_bundle(coded, folder, find_target("rtx40"), OPTIONS)
    return folder


@pytest.fixture
def bundle(exported, tmp_path):
    """A copy that a test may change."""
    return Path(shutil.copytree(exported, tmp_path / "bundle"))


@pytest.fixture(scope="module")
def engines(exported, tmp_path_factory):
    pytest.importorskip("tensorrt_rtx")
    folder = Path(shutil.copytree(exported, tmp_path_factory.mktemp("engines") / "bundle"))
    build_engines(open_bundle(folder))
    return folder


@pytest.fixture
def without_library(monkeypatch):
    def lacks():
        raise MissingDependency("there is no C++ compiler.")

    monkeypatch.setattr(onnx_session, "native_library", lacks)
    onnx_session._log_once.cache_clear()


def largest_error(session, bundle):
    """Of whole chunks, relative to PyTorch's."""
    return max(
        np.linalg.norm(session.run(CHUNK, sample)["actions"] - sample["actions"])
        / np.linalg.norm(sample["actions"])
        for sample in samples(bundle)
    )


def test_parts_and_whole_chunk_have_the_actions_of_pytorch(exported):
    bundle = open_bundle(exported)
    session = OnnxSession(bundle)
    assert (session.is_coded, session.precision) == (True, "int16")
    found = nearness(bundle, session, "int16")
    assert found["passed"]
    assert found["max_error"] < 2e-3
    assert largest_error(session, bundle) < 1e-3  # inputs of layers are rounded to int16


def test_without_the_library_layers_are_decoded_and_one_line_says_so(
    exported, without_library, caplog
):
    bundle = open_bundle(exported)
    sessions = [OnnxSession(bundle) for _ in range(2)]
    (said,) = [r.getMessage() for r in caplog.records if r.name.startswith("einsort_vla.runtime")]
    assert "as it cannot load the native library: there is no C++ compiler. " in said
    assert "apt-get install g++" in said
    assert (sessions[0].is_coded, sessions[0].precision) == (False, "float32")
    found = nearness(bundle, sessions[0], "float32")
    assert found["passed"]
    assert found["max_error"] < 1e-4
    assert largest_error(sessions[0], bundle) < 1e-5


def test_actions_that_are_wrong_do_not_pass(exported):
    bundle = open_bundle(exported)
    session = OnnxSession(bundle)
    for change in (lambda v: 1.2 * v, lambda v: v + 0.05, np.roll):
        wrong = (lambda v: np.roll(v, 1, -1)) if change is np.roll else change
        assert not nearness(bundle, Changed(session, wrong), "float16")["passed"]
    seen = []

    def last_is_nan(velocity):
        seen.append(velocity)
        return velocity * np.float32(np.nan) if len(seen) > 8 else velocity

    found = nearness(bundle, Changed(session, last_is_nan), "float16")
    assert not found["passed"]
    assert found["cosine"] is None


def test_the_graphs_of_engines_compute_in_halves_and_are_near(bundle, without_library):
    """ONNX Runtime runs them, too, once it knows what their nodes mean."""
    parts = open_bundle(bundle).parts
    for part in parts:
        path = bundle / "graphs" / f"{part}.engine.onnx"
        graph = onnx.load(path, load_external_data=False)
        nodes = [node for node in graph.graph.node if node.domain == "einsort"]
        assert len(nodes) == len(parts[part].layers)
        assert not graph.functions
        types = {w.data_type for w in graph.graph.initializer if w.name.endswith("norm.weight")}
        assert types == {onnx.TensorProto.FLOAT16}
        graph.functions.extend(function_bodies())
        onnx.save(graph, bundle / "graphs" / f"{part}.onnx")
    write_sums(bundle)
    opened = open_bundle(bundle)
    found = nearness(opened, OnnxSession(opened), "float16")
    assert found["passed"]
    assert found["max_error"] > 5e-5  # ten times that of float32: they are not the same graphs


def test_engines_hold_every_layer_coded(engines):
    found = audit(open_bundle(engines))
    assert found.failures == []
    assert {row.executed for row in found.rows} == {"PLUGIN_V3"}
    names = {row.name for row in found.rows}
    assert len(names) > 80
    assert names.isdisjoint(name.removesuffix(".weight") for name in found.kept)
    receipt = json.loads((engines / "engines" / "receipt.json").read_text())
    for part, facts in open_bundle(engines).parts.items():
        assert receipt["parts"][part]["layers"]["PLUGIN_V3"] == len(facts.layers)


def test_engines_are_built_once(engines):
    before = (engines / "engines" / "vision.engine").stat().st_mtime_ns
    build_engines(open_bundle(engines))
    assert (engines / "engines" / "vision.engine").stat().st_mtime_ns == before
    (engines / "engines" / "vision.engine").write_bytes(b"changed")
    with pytest.raises(CheckpointError, match="engine of vision is missing or not what was built"):
        audit(open_bundle(engines))
    build_engines(open_bundle(engines))
    assert audit(open_bundle(engines)).failures == []


def test_a_layer_that_became_dense_fails_the_audit(engines, coded, tmp_path):
    """A real engine, one of whose layers multiplies by a decoded matrix."""
    folder = Path(shutil.copytree(engines, tmp_path / "bundle"))
    path = folder / "graphs" / "prefix.engine.onnx"
    model = onnx.load(path, load_external_data=False)
    node = next(n for n in model.graph.node if n.domain == "einsort")
    layer = load_policy(str(coded), backend="reference").module.get_submodule(node.name)
    assert isinstance(layer, CompressedLinear)
    weight = decode(layer.compressed).t().half().numpy()
    model.graph.initializer.append(numpy_helper.from_array(weight, "decoded"))
    dense = helper.make_node("MatMul", [node.input[0], "decoded"], node.output, name=node.name)
    place = list(model.graph.node).index(node)
    model.graph.node.remove(node)
    model.graph.node.insert(place, dense)
    onnx.save(model, path)
    write_sums(folder)
    build_engines(open_bundle(folder))
    failures = audit(open_bundle(folder)).failures
    assert f"prefix: {node.name} is dense" in failures
    assert commands.audit(folder, (), lambda line: None) == 1


def test_damaged_receipts(engines, tmp_path):
    folder = Path(shutil.copytree(engines, tmp_path / "bundle"))
    receipt = folder / "engines" / "receipt.json"
    other = receipt.read_text().replace('"vision.engine"', '"../samples.npz"')
    for content in ("", "[]", "{}", other):
        receipt.write_text(content)
        with pytest.raises(CheckpointError, match="is damaged"):
            audit(open_bundle(folder))


def test_dense_policies_and_other_forms_are_refused(reference_policy, tmp_path):
    refused = tmp_path / "bundle"
    with pytest.raises(UsageError, match=r"is not compressed\. First: einsort-vla compress"):
        export_bundle(reference_policy, refused, find_target("cpu"), OPTIONS)
    scalar = tmp_path / "scalar"
    compress(reference_policy, scalar, 0.5, Codec("scalar"))
    with pytest.raises(
        UsageError, match=r"is not exported\. Compress the dense policy with --codec curve"
    ):
        export_bundle(scalar, refused, find_target("cpu"), OPTIONS)
    with pytest.raises(UsageError, match=r"unknown target 'orion'\. Did you mean 'orin'"):
        find_target("orion")
    assert {p.name for p in tmp_path.iterdir()} == {"scalar"}


def test_any_changed_byte_is_found(bundle):
    rng = np.random.default_rng(0)
    for path in sorted(p for p in bundle.rglob("*") if p.is_file() and p.stat().st_size):
        content = path.read_bytes()
        place = int(rng.integers(len(content)))
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(CheckpointError):
            open_bundle(bundle)
        path.write_bytes(content)
    open_bundle(bundle)
    (bundle / "graphs" / "more.onnx").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"more\.onnx', which SHA256SUMS does not list"):
        open_bundle(bundle)
    (bundle / "graphs" / "more.onnx").unlink()
    (bundle / "samples.npz").unlink()
    with pytest.raises(CheckpointError, match=r"samples\.npz is missing"):
        open_bundle(bundle)


def test_a_bundle_of_another_version(bundle):
    manifest = bundle / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"version": 2', '"version": 9'))
    write_sums(bundle)
    with pytest.raises(CheckpointError, match="version 9; this program reads"):
        open_bundle(bundle)
    (bundle / SUMS).unlink()
    with pytest.raises(CheckpointError, match="is no exported policy"):
        open_bundle(bundle)


def test_wrong_inputs_are_named(exported):
    session, sample = OnnxSession(open_bundle(exported)), next(samples(open_bundle(exported)))
    with pytest.raises(ShapeError, match="'state', which is not given"):
        session.run("prefix", {k: v for k, v in sample.items() if k != "state"} | {
            "image_embeddings": np.zeros((1, 2, 9, 256), np.float32)
        })  # fmt: skip
    with pytest.raises(ShapeError, match=r"images has shape \[0, 2, 3, 96, 96\]"):
        session.run("vision", {"images": sample["images"][:0]})
    with pytest.raises(ShapeError, match=r"must be \[1, 2, 3, 96, 96\]"):
        session.run("vision", {"images": sample["images"][..., :90]})


def test_builders_that_cannot_build_say_why(bundle, monkeypatch):
    pytest.importorskip("tensorrt_rtx")
    manifest = json.loads((bundle / "manifest.json").read_text())

    def with_target(**changes):
        changed = {**manifest, "target": {**manifest["target"], **changes}}
        if "compute_capability" in changes and changes["compute_capability"] is None:
            changed["precision"] = {**manifest["precision"], "engines": None}
            changed["parts"] = {
                part: {k: v for k, v in facts.items() if k != "engine_bytes_needed"}
                for part, facts in manifest["parts"].items()
            }
        (bundle / "manifest.json").write_text(json.dumps(changed))
        write_sums(bundle)
        return open_bundle(bundle)

    with pytest.raises(CheckpointError, match="built on the device itself"):
        build_engines(with_target(machine="aarch64"))
    with pytest.raises(CheckpointError, match="no graphs for engines"):
        build_engines(with_target(compute_capability=None, machine=None))
    with pytest.raises(EngineError, match=r"could not build the engine of vision.*SM999"):
        build_engines(with_target(compute_capability=999))
    opened = with_target()
    plugin = next((bundle / "plugin").glob("*.so"))
    for content, said in (
        (b"no library", "could not be loaded as a plugin"),
        (plugin.read_bytes()[:1000], r"\(signal 7\)"),  # it ends the builder's process, not ours
    ):
        plugin.write_bytes(content)
        write_sums(bundle)
        with pytest.raises(EngineError, match=said):
            build_engines(open_bundle(bundle))
    plugin.unlink()
    write_sums(bundle)
    with pytest.raises(CheckpointError, match="has no plugin for x86_64; it has none"):
        build_engines(open_bundle(bundle))
    assert not (bundle / "engines" / "receipt.json").exists()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match="no TensorRT can be imported here"):
        build_engines(opened)


def test_the_source_of_the_plugin_compiles_where_tensorrt_is(bundle, monkeypatch):
    """As on a device; TensorRT's headers are those of the build."""
    import kernel_lens

    headers = Path(kernel_lens.__file__).parent / "include" / "tensorrt"
    monkeypatch.setenv("CPLUS_INCLUDE_PATH", str(headers))
    (library,) = (bundle / "plugin").glob("*.so")
    before = library.read_bytes()
    subprocess.run(["sh", str(bundle / "plugin" / "source" / "build.sh")], check=True)
    assert library.read_bytes() != before  # with other options, and not static
    open_bundle(bundle)
    pytest.importorskip("tensorrt_rtx")
    build_engines(open_bundle(bundle))
    assert audit(open_bundle(bundle)).failures == []


def test_the_device_program_needs_no_torch(bundle):
    """In an interpreter in which importing torch, or the rest of this package, fails. The program
    compiles the native library of what it carries."""
    start = (
        "import sys; "
        "sys.modules.update(dict.fromkeys(['torch', 'safetensors', 'einsort_vla.codec'])); "
        "sys.argv = sys.argv[1:]; sys.path.insert(0, sys.argv[0]); "
        "import runpy; runpy.run_path(sys.argv[0], run_name='__main__')"
    )

    def run(*arguments):
        command = [sys.executable, "-I", "-c", start, str(bundle / "einsort-device.pyz")]
        return subprocess.run([*command, *arguments], capture_output=True, text=True)

    verified = run("verify", str(bundle), "--runtime", "onnx")
    assert verified.returncode == 0, verified.stderr
    assert "4 observations: cosine 1.0000000" in verified.stdout
    timed = run("bench", str(bundle), "--runtime", "onnx", "--n", "2")
    assert "whole chunk: p50" in timed.stdout
    assert "MB more than after importing; the coded streams have 3." in timed.stdout
    receipt = json.loads((bundle / "engines" / "bench-onnx.json").read_text())
    assert receipt["latency_ms"]["denoise_step"]["n"] == 10
    assert (
        receipt["resident_bytes"]
        < 4
        * sum(layer.weights for part in open_bundle(bundle).parts.values() for layer in part.layers)
        + 2**24
    )  # ONNX Runtime's own code, and dense weights
    refused = run("verify", str(bundle / "graphs"))
    assert refused.returncode == 2
    assert refused.stderr.startswith("Error: ")


def test_the_device_program_runs_on_older_pythons(bundle):
    """JetPack 6 has Python 3.10."""
    import ast
    import zipfile

    with zipfile.ZipFile(bundle / "einsort-device.pyz") as program:
        for name in [name for name in program.namelist() if name.endswith(".py")]:
            ast.parse(program.read(name), name, feature_version=(3, 10))
