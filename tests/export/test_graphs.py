"""Parts and whole chunks of tiny policies in ONNX Runtime, against PyTorch."""

import numpy as np
import pytest
import torch

pytest.importorskip("lerobot")
pytest.importorskip("onnxruntime")

import lerobot_policy_einsort  # noqa: F401
import onnx
import onnxruntime
from lerobot.policies.factory import get_policy_class

from einsort_vla.errors import UsageError
from einsort_vla.export import GraphOptions
from einsort_vla.export.graphs import write_graphs
from einsort_vla.families import export_of
from einsort_vla.lerobot import LoadedPolicy, quiet_lerobot
from einsort_vla.runtime.flow import sample_actions
from tests.compressing import compress
from tests.policies.tiny_policies import FAMILIES

TOLERANCE = 1e-5  # relative; sums of float32 in another order
BATCH = 2


class Graphs:
    """Runs the graphs of a folder."""

    def __init__(self, folder, names):
        self.sessions = {
            name: onnxruntime.InferenceSession(folder / f"{name}.onnx") for name in names
        }

    def run(self, part, inputs):
        session = self.sessions[part]
        feed = {i.name: np.asarray(inputs[i.name]) for i in session.get_inputs()}
        names = [o.name for o in session.get_outputs()]
        return dict(zip(names, session.run(names, feed), strict=True))


@pytest.fixture(scope="module", params=["pi0", "pi05"])
def exported(request, tmp_path_factory):
    """A tiny policy, and the folder of its graphs with an open batch."""
    folder = tmp_path_factory.mktemp(request.param)
    with quiet_lerobot(), FAMILIES[request.param](folder) as build:
        torch.manual_seed(0)
        policy = build()
        for parameter in policy.parameters():
            parameter.data += 0.02 * torch.randn_like(parameter)
        policy.save_pretrained(folder / "dense")
        compress(folder / "dense", folder / "coded", 0.75)

        def load(backend="reference"):
            kind = get_policy_class(f"einsort_{request.param}")
            coded = folder / "coded"
            module = kind.from_pretrained(coded, backend=backend)
            return LoadedPolicy(module, None, None, coded)

        (folder / "graphs").mkdir()
        options = GraphOptions(BATCH, dynamic_batch=True)
        facts = write_graphs(load, folder / "graphs", options, None)
        yield load("decoded"), folder / "graphs", facts


def parts_of(policy):
    return export_of(policy.module.config.type).parts(policy.module, BATCH)


def norm_error(found, expected):
    found, expected = np.float64(found), np.float64(expected)
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def test_every_part_and_the_whole_chunk(exported):
    policy, folder, facts = exported
    assert all(entry["shape"][0] is None for entry in facts["chunk"]["inputs"])
    graphs = Graphs(folder, [*facts["parts"], "chunk"])
    parts = {part.name: part for part in parts_of(policy)}
    with torch.no_grad():
        for part in parts.values():
            expected = part.module(*part.inputs.values())
            expected = expected if isinstance(expected, tuple) else (expected,)
            found = graphs.run(part.name, part.inputs).values()
            for own, other in zip(found, expected, strict=True):
                assert norm_error(own, other.numpy()) < TOLERANCE, part.name
        shown = {**parts["vision"].inputs, **parts["prefix"].inputs, **parts["denoise_step"].inputs}
        noise = shown["noisy_actions"]
        state = [shown["state"]] if "state" in shown else []
        expected = policy.module.model.sample_actions(
            list(shown["images"].unbind(1)), list(shown["image_masks"].unbind(1)),
            shown["tokens"], shown["token_masks"], *state, noise=noise,
        ).numpy()  # fmt: skip
    shown = {name: tensor.numpy() for name, tensor in shown.items()} | {"noise": noise.numpy()}
    whole = graphs.run("chunk", shown)["actions"]
    assert norm_error(whole, expected) < TOLERANCE
    n_steps = export_of(policy.module.config.type).n_steps(policy.module.config)
    assert norm_error(sample_actions(graphs, shown, n_steps), expected) < TOLERANCE
    one = {name: array[:1] for name, array in shown.items() if name not in ("keys", "values")}
    assert norm_error(graphs.run("chunk", one)["actions"], expected[:1]) < TOLERANCE


def test_what_several_layers_read_is_turned_once(exported):
    _, folder, facts = exported
    for part in facts["parts"]:
        path = folder / f"{part}.onnx"
        onnx.checker.check_model(path)
        nodes = onnx.load(path, load_external_data=False).graph.node
        turned = [tuple(node.input) for node in nodes if node.op_type == "Rotate"]
        n_layers = sum(node.op_type == "MatmulCurve" for node in nodes)
        assert len(set(turned)) == len(turned) < n_layers
        assert len({inputs[1] for inputs in turned}) <= 3  # widths, whose matrices are shared


def test_what_is_not_exported():
    with pytest.raises(UsageError, match=r"type 'act' are not exported; those of smolvla, pi0"):
        export_of("einsort_act")


def test_pi0_in_bfloat16(exported):
    """In PyTorch: its engines' graphs are traced of this."""
    policy, _, _ = exported
    assert "float16" not in export_of("pi0").precisions
    expected = [part.module(*part.inputs.values()) for part in parts_of(policy)]
    export_of("pi0").set_precision(policy.module, torch.bfloat16)
    for part, before in zip(parts_of(policy), expected, strict=True):
        after = part.module(*part.inputs.values())
        pairs = zip(after, before, strict=True) if isinstance(after, tuple) else [(after, before)]
        for own, other in pairs:
            error = norm_error(own.detach().numpy(), other.detach().numpy())
            assert error < 0.05, part.name
