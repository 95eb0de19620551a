"""Running engines, with stand-ins for TensorRT and for the CUDA driver: no GPU is here."""

import json
import logging
import sys
import threading
from dataclasses import asdict, replace

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx

from einsort_vla.errors import CheckpointError, EngineError, MissingDependency, ShapeError
from einsort_vla.runtime import engine as engines
from einsort_vla.runtime import gpu, loading, measure, tensorrt
from einsort_vla.runtime.bundle import Bundle
from einsort_vla.runtime.flow import sample_actions
from einsort_vla.runtime.manifest import DENOISE_STEP, PREFIX, VISION, Batch, Graph, Value
from einsort_vla.runtime.onnx import OnnxSession
from tests.export.emulated_cuda import ILLEGAL_ADDRESS, EmulatedDriver
from tests.export.emulated_tensorrt import emulated_tensorrt, still_there
from tests.export.small_graphs import small_graphs, small_inputs, small_manifest, with_move

N_STEPS, MOST = 4, 3
OPEN, FIXED = Batch(MOST, True), Batch(1, False)
PLUGIN = "plugin/libeinsort_plugin-x86_64.so"


@pytest.fixture
def driver(monkeypatch):
    """Of a GPU on which all is freed that a test's sessions took."""
    made = EmulatedDriver()
    monkeypatch.setattr(gpu, "_library", made.library)
    gpu._driver.cache_clear()
    loading._plugins.clear()
    yield made
    gpu._driver.cache_clear()
    loading._plugins.clear()
    assert made.bugs == []


@pytest.fixture(params=["tensorrt_rtx", "tensorrt"])
def trt(request, driver, monkeypatch):
    name = request.param
    module = emulated_tensorrt(driver, name)
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(engines, "_version", lambda builder: "1.7.1")
    monkeypatch.setattr(tensorrt, "find_builder", lambda bundle: name)
    return module


@pytest.fixture
def make(tmp_path, trt):
    """Makes a bundle with its engines."""

    def bundle(seed=0, batch=OPEN, plugin=b"plugin", change=lambda part, model: model):
        folder = tmp_path / f"bundle {seed}"
        for name in ("graphs", "plugin", "engines"):
            (folder / name).mkdir(parents=True)
        (folder / PLUGIN).write_bytes(plugin)
        graphs = small_graphs(seed, batch)
        manifest = small_manifest(graphs, batch, N_STEPS)
        for part, model in graphs.items():
            onnx.save(model, folder / f"graphs/{part}.onnx")
            built = with_move(model, N_STEPS) if part == DENOISE_STEP else model
            (folder / f"engines/{part}.engine").write_bytes(change(part, built).SerializeToString())
        made = Bundle(folder, manifest, "f" * 64)
        write_receipt(made, trt.__name__)
        return made

    return bundle


def write_receipt(bundle, builder):
    folder = bundle.folder / "engines"
    facts = {
        part: engines.EngineFacts(
            1.0, {}, (), f"{part}.engine", engines.sha256(folder / f"{part}.engine"), 6
        )
        for part in bundle.parts
    }
    known = asdict(engines._circumstances(bundle, builder, bundle.plugin))
    receipt = engines.Receipt(**known, parts=facts)
    (folder / "receipt.json").write_text(json.dumps(asdict(receipt)))


def expected(bundle, inputs):
    """By ONNX Runtime, part by part, with the host's own sums: the same operations in float32."""
    return sample_actions(OnnxSession(bundle), inputs, N_STEPS)


@pytest.mark.parametrize("batch", [OPEN, FIXED])
@pytest.mark.parametrize("records", [True, False])
def test_chunks_are_those_of_the_onnx_session(make, driver, batch, records, caplog):
    driver.records = records
    bundle = make(batch=batch)
    with tensorrt.EngineSession(bundle) as session:
        for seed, rows in enumerate((1, 3, 1, 2, 3) if batch.dynamic else (1, 1)):
            inputs = small_inputs(seed, rows)
            found = sample_actions(session, inputs, N_STEPS)
            np.testing.assert_array_equal(found, expected(bundle, inputs))
        assert session.is_one_graph == records
    assert still_there(driver) == []
    told = [r for r in caplog.records if r.levelno >= logging.WARNING]
    n_sizes = 0 if records else 3 if batch.dynamic else 1
    assert len(told) == n_sizes
    assert all("one by one" in r.getMessage() for r in told)


@pytest.mark.parametrize("records", [True, False])
def test_what_a_chunk_costs(make, driver, records):
    driver.records = records
    bundle, inputs = make(), small_inputs(0, 1)
    with tensorrt.EngineSession(bundle) as session:
        kept = session.chunk(inputs)
        driver.calls.clear()
        driver.copied.clear()
        allocated = driver.n_allocated
        for seed in range(10):
            session.chunk(small_inputs(seed, 1))
        np.testing.assert_array_equal(kept, expected(bundle, inputs))  # it is the caller's
    each = {"cuCtxSetCurrent": 1, "cuStreamSynchronize": 1}
    if records:
        each |= {"cuGraphLaunch": 1}
    else:
        copies = {"HtoD": len(inputs), "DtoH": 1, "DtoD": 2 * N_STEPS - 1}
        each |= {f"cuMemcpy{kind}Async_v2": n for kind, n in copies.items()}
    closing = [name for name in driver.calls if "Free" in name or "Destroy" in name]
    spent = {name: n for name, n in driver.calls.items() if name not in closing}
    spent["cuCtxSetCurrent"] -= sum(driver.calls[name] for name in closing) + 1
    spent["cuStreamSynchronize"] -= 1  # also of closing
    assert spent == {name: 10 * n for name, n in each.items()}
    assert driver.n_allocated == allocated
    actions, time = inputs["noise"].nbytes, 4
    assert driver.copied == {
        "HtoD": 10 * sum(array.nbytes for array in inputs.values()),
        "DtoH": 10 * actions,
        "DtoD": 10 * (N_STEPS * time + (N_STEPS - 1) * actions),
    }


def test_latency_is_that_of_whole_chunks(make, driver, monkeypatch):
    bundle = make()
    monkeypatch.setattr(measure, "samples", lambda bundle: iter([small_inputs(0, 1)]))
    with tensorrt.EngineSession(bundle) as session:
        before = driver.calls["cuGraphLaunch"]
        found = measure.latency(bundle, session, 7)
        assert driver.calls["cuGraphLaunch"] - before == measure.WARM_UP + 7
        inputs = small_inputs(1, 2)
        parts = [part for part, _ in session.part_seconds(inputs)]
        assert parts == [VISION, PREFIX, *[DENOISE_STEP] * N_STEPS]
        np.testing.assert_array_equal(session.chunk(inputs), expected(bundle, inputs))
    n = {VISION: 7, PREFIX: 7, DENOISE_STEP: 7 * N_STEPS, measure.WHOLE_CHUNK: 7}
    assert {name: ms["n"] for name, ms in found.items()} == n


def test_sessions_side_by_side(make, driver):
    """Two policies, each from a thread of its own, as each alone."""
    bundles = [make(seed) for seed in (1, 2)]
    shown = [small_inputs(seed, 1 + seed % 2) for seed in range(6)]
    alone = [[expected(bundle, inputs) for inputs in shown] for bundle in bundles]
    sessions = [tensorrt.EngineSession(bundle) for bundle in bundles]
    by_turns = [[session.chunk(inputs) for session in sessions] for inputs in shown]
    found: list = [None, None]

    def work(k):
        found[k] = [sessions[k].chunk(inputs) for inputs in shown]

    threads = [threading.Thread(target=work, args=(k,)) for k in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k in (0, 1):
        for n, actions in enumerate(alone[k]):
            np.testing.assert_array_equal(by_turns[n][k], actions)
            np.testing.assert_array_equal(found[k][n], actions)
    sessions[0].close()
    np.testing.assert_array_equal(sessions[1].chunk(shown[0]), alone[1][0])
    assert driver.calls["cuDevicePrimaryCtxRetain"] == 1
    sessions.clear()  # nobody closes the other one
    assert still_there(driver) == []


def test_memory_may_end_at_any_allocation(make, driver, caplog):
    bundle, inputs = make(), small_inputs(0, 2)
    n, refused, is_graph = 0, [], False
    while not is_graph and n < 100:
        n += 1
        driver.n_allocated, driver.failing = 0, n
        try:
            with tensorrt.EngineSession(bundle) as session:
                session.chunk(inputs)  # of another batch, for which contexts are made
                is_graph = session.is_one_graph
        except EngineError as error:
            refused.append(str(error))
            assert still_there(driver) == []  # while the error is still there
            continue
        assert still_there(driver) == []
    texts = " ".join(refused)
    for told in ("no 0.0 MB for the policy", "cannot pin", "cannot load", "cannot prepare"):
        assert told in texts
    n_engines, n_blocks, n_contexts = 3, 3, 2 * 3  # contexts for each of two batches
    assert len(refused) == n_engines + 1 + n_blocks + n_contexts  # and a stream
    assert n == len(refused) + 2 * 3 + 1  # graphs can be done without


def test_inputs_that_do_not_fit_leave_a_session_open(make, driver):
    bundle = make()
    with tensorrt.EngineSession(bundle) as session:
        for rows in (0, MOST + 1):
            with pytest.raises(ShapeError, match=r"images has shape .* must be \['1 to 3', 2, 3,"):
                session.chunk(small_inputs(0, rows))
        inputs = small_inputs(0, 2)
        with pytest.raises(ShapeError, match=r"have one batch, and .*state has 1, noise has 2"):
            session.chunk({**inputs, "state": inputs["state"][:1]})
        del inputs["tokens"]
        with pytest.raises(ShapeError, match="chunk needs the input 'tokens'"):
            session.chunk(inputs)
        inputs = small_inputs(1, 2)
        np.testing.assert_array_equal(session.chunk(inputs), expected(bundle, inputs))


def test_a_session_ends_with_a_fault_of_the_gpu(make, driver):
    session, inputs = tensorrt.EngineSession(make()), small_inputs(0, 1)
    driver.fault = ILLEGAL_ADDRESS
    with pytest.raises(EngineError, match="cuStreamSynchronize: CUDA_ERROR_ILLEGAL_ADDRESS, 700"):
        session.chunk(inputs)
    for call in (lambda: session.chunk(inputs), lambda: session.part_seconds(inputs)):
        with pytest.raises(EngineError, match=r"is closed: it failed: .*ILLEGAL.* Open another"):
            call()
    session.close()


def test_a_session_ends_when_tensorrt_refuses(make, driver, trt):
    session, inputs = tensorrt.EngineSession(make()), small_inputs(0, 2)
    trt.runs = False
    with pytest.raises(EngineError, match="TensorRT could not run vision"):
        session.chunk(inputs)
    assert still_there(driver) == []
    with pytest.raises(EngineError, match="closed: it failed: TensorRT could not run vision"):
        session.chunk(inputs)


def test_closed_sessions_say_so(make, driver):
    session = tensorrt.EngineSession(make())
    session.close()
    assert still_there(driver) == []
    session.close()
    with pytest.raises(EngineError, match=r"bundle 0 is closed: it was closed\. Open another one"):
        session.chunk(small_inputs(0, 1))


def renamed(part, model):
    for value in (*model.graph.input, *model.graph.output):
        value.name = {"state": "stance"}.get(value.name, value.name)
    for node in model.graph.node:
        node.input[:] = ["stance" if name == "state" else name for name in node.input]
    return model


def retyped(part, model):
    for value in model.graph.input:
        if value.name == "images":
            value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
            cast = onnx.helper.make_node("Cast", ["images"], ["single"], to=1)
            model.graph.node[1].input[0] = "single"
            model.graph.node.insert(0, cast)
    return model


def reshaped(part, model):
    for value in (*model.graph.input, *model.graph.output):
        if value.name in ("noisy_actions", "velocity", "moved_actions"):
            value.type.tensor_type.shape.dim[1].dim_value = 7
    return model


def not_moving(part, model):
    if part == DENOISE_STEP:
        del model.graph.output[1]
    return model


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (renamed, "prefix.engine does not .* stance is INPUT FLOAT on DEVICE, .* it is nothing"),
        (retyped, "images is INPUT DOUBLE on DEVICE, and by the manifest it is INPUT FLOAT"),
        (reshaped, r"denoise_step has noisy_actions of shape \[.*7, 3\], .* it is \[1, 6, 3\]"),
        (not_moving, "moved_actions is nothing, and by the manifest it is OUTPUT FLOAT on DEVICE"),
    ],
)
def test_engines_with_other_tensors_are_refused(make, driver, change, told):
    bundle = make(change=change)
    with pytest.raises(CheckpointError, match=f"{told}.*build again"):
        tensorrt.EngineSession(bundle)
    assert still_there(driver) == []


def test_manifests_whose_parts_do_not_fit_are_refused(make, driver):
    bundle = make()
    manifest = bundle.manifest
    lacking = Graph(manifest.chunk.inputs[1:], manifest.chunk.outputs)
    manifest.chunk, whole = lacking, manifest.chunk
    with pytest.raises(CheckpointError, match=r"vision takes .*images.* there is nothing"):
        tensorrt.EngineSession(bundle)
    manifest.chunk = Graph(whole.inputs, (Value("actions", "int64", whole.outputs[0].shape),))
    with pytest.raises(CheckpointError, match=r"its chunk gives .*int64"):
        tensorrt.EngineSession(bundle)
    twice = Graph((*whole.inputs, Value("keys", "float32", (1,))), whole.outputs)
    manifest.chunk = twice
    with pytest.raises(CheckpointError, match=r"prefix gives .*keys.* before it there is"):
        tensorrt.EngineSession(bundle)


def test_a_process_has_one_plugin(make, driver, trt):
    first = tensorrt.EngineSession(make(1))
    with pytest.raises(EngineError, match=r"one of another version. Run this policy in a process"):
        tensorrt.EngineSession(make(2, plugin=b"another"))
    first.close()


@pytest.mark.parametrize("changed", ["engines/vision.engine", PLUGIN])
def test_engines_that_do_not_fit_are_refused(make, changed):
    bundle = make()
    (bundle.folder / changed).write_bytes(b"another")
    with pytest.raises(CheckpointError, match=r"cannot be used: .*(plugin|not what was built)"):
        tensorrt.EngineSession(bundle)


def test_gpus_and_drivers_that_cannot_run_them(make, driver, monkeypatch):
    bundle = make()
    monkeypatch.setattr(engines, "why_stale", lambda *_: None)
    monkeypatch.setattr(tensorrt, "why_stale", lambda *_: None)
    driver.capability = 75
    with pytest.raises(CheckpointError, match=r"for compute capability 8\.9; this GPU has 7\.5"):
        tensorrt.EngineSession(bundle)
    driver.capability = 89
    bundle.manifest.target = replace(bundle.manifest.target, cuda="13.0")
    with pytest.raises(CheckpointError, match=r"of CUDA 13\.0, and the driver here is of 12\.6"):
        tensorrt.EngineSession(bundle)
    gpu._driver.cache_clear()
    old = driver.library(lacks=("cuGraphInstantiateWithFlags",))
    monkeypatch.setattr(gpu, "_library", lambda: old)
    with pytest.raises(MissingDependency, match=r"no cuGraphInstantiateWithFlags: .* Update it"):
        tensorrt.EngineSession(bundle)


def test_no_signature_covers_engines_that_others_built(make, driver):
    bundle = make()
    tensorrt.EngineSession(bundle).close()  # the user who names no key takes the folder as it is
    with pytest.raises(CheckpointError, match="not built here, and no signature covers them"):
        tensorrt.EngineSession(replace(bundle, is_signed=True))
