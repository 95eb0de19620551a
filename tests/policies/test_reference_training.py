"""The training objective is LeRobot's own, and the recipe keeps away from the exam."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from policies.reference import demonstrations
from policies.reference.data import Demonstrations
from policies.reference.model import Shape, build_policy, build_vlm_folder
from policies.reference.objective import PlaceHead, flow_loss
from policies.reference.train import TrainSettings, export, learning_rate, train

SHAPE = Shape(vision_layers=1, text_layers=2, vision_width=48, vision_heads=1, text_width=64,
              text_heads=2, text_ffn=64)  # fmt: skip


@pytest.fixture(scope="module")
def vlm_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work") / "vlm"
    build_vlm_folder(folder, SHAPE)
    return folder


def test_flow_loss_equals_lerobots_forward(vlm_folder, monkeypatch):
    torch.manual_seed(0)
    model = build_policy(vlm_folder, SHAPE).model.eval()
    pictures = torch.rand(2, 2, 3, 96, 96)
    tokens, mask = torch.randint(7, 90, (2, 24)), torch.ones(2, 24, dtype=torch.bool)
    state, actions = torch.randn(2, 8), torch.randn(2, 8, 7)
    noise, time = torch.randn(2, 8, 7), torch.rand(2)
    monkeypatch.setattr(torch, "randn_like", lambda x: noise)
    monkeypatch.setattr(model, "sample_time", lambda n, device: time)
    ours = flow_loss(model, pictures, tokens, mask, state, actions, n_draws=1)
    present = [torch.ones(2, dtype=torch.bool)] * 2
    views = [pictures[:, 0] * 2 - 1, pictures[:, 1] * 2 - 1]
    theirs = model.forward(views, present, tokens, mask, state, actions, noise, time)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_all_weights_in_use_learn(vlm_folder):
    policy = build_policy(vlm_folder, SHAPE)
    head = PlaceHead(policy)
    loss = flow_loss(
        policy.model, torch.rand(1, 2, 3, 96, 96), torch.full((1, 24), 9),
        torch.ones(1, 24, dtype=torch.bool), torch.randn(1, 8), torch.randn(1, 8, 7), 2,
    ).mean() + head.loss(torch.zeros(1, 6)).mean()  # fmt: skip
    loss.backward()
    still = {name for name, p in policy.named_parameters() if p.requires_grad and p.grad is None}
    # The last layer's output is read by nobody: the expert attends to keys and values alone.
    last = f"text_model.layers.{SHAPE.text_layers - 1}."
    idle = ("o_proj", "mlp", "post_attention_layernorm", "q_proj")
    assert all(
        (last in name and any(part in name for part in idle)) or "text_model.norm" in name
        for name in still
    ), still


def fake_demonstrations(folder, n=3, length=12):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(n):
        np.savez(
            folder / f"libero_object_{i}_expert1_000.npz",
            pictures=rng.integers(0, 256, (4, 2, 128, 128, 3), np.uint8),
            look_steps=np.arange(0, length, 3),
            states=rng.normal(size=(length, 8)).astype(np.float32),
            actions=rng.normal(size=(length, 7)).astype(np.float32),
            places=rng.normal(size=(length, 6)).astype(np.float32),
            task=f"task {i % 2}",
        )


def test_samples_are_the_chunk_after_each_look(tmp_path):
    fake_demonstrations(tmp_path / "demos")
    data = Demonstrations(tmp_path / "demos", SHAPE)
    assert (len(data), data.n_files, data.tasks) == (12, 3, ["task 0", "task 1"])
    with np.load(tmp_path / "demos" / "libero_object_0_expert1_000.npz") as file:
        pictures, _, chunks, places, _ = data._samples
        np.testing.assert_array_equal(chunks[1], file["actions"][3:11])
        np.testing.assert_array_equal(chunks[3, 3:], np.repeat(file["actions"][-1:], 5, 0))
        hand = file["states"][3, :3]
        np.testing.assert_allclose(places[1], file["places"][3] - [*hand, *hand], rtol=1e-5)
    assert pictures.shape == (12, 2, 3, 96, 96)


@pytest.mark.slow
def test_training_resumes_and_exports_an_ordinary_checkpoint(tmp_path):
    from policies.lerobot_adapter import load

    fake_demonstrations(tmp_path / "demos")
    settings = TrainSettings(steps=6, batch=4, save_every=2)
    train(tmp_path, SHAPE, settings, until=3, n_processes=2)
    train(tmp_path, SHAPE, settings, until=6, n_processes=2)
    state = torch.load(tmp_path / "train_state.pt", weights_only=True)
    assert state["step"] == 6
    export(tmp_path, tmp_path / "policy", SHAPE)
    assert load(str(tmp_path / "policy")).chunk_size == SHAPE.chunk_size
    train(tmp_path, SHAPE, settings, until=7, n_processes=2)
    export(tmp_path, tmp_path / "mixed", SHAPE, tmp_path / "policy", start_share=1.0)
    first, mixed = (load_file(tmp_path / n / "model.safetensors") for n in ("policy", "mixed"))
    assert all(torch.equal(first[name], mixed[name]) for name in first)


def test_schedule_warms_up_and_ends_low():
    settings = TrainSettings(steps=1000)
    rates = [learning_rate(step, settings) for step in range(1001)]
    assert rates[0] < 0.02 * settings.learning_rate
    assert max(rates) == pytest.approx(settings.learning_rate, rel=0.02)
    assert rates[-1] == pytest.approx(settings.final_share * settings.learning_rate)


def test_demonstrations_never_load_stored_initial_states():
    source = open(demonstrations.__file__).read()  # noqa: SIM115
    assert "load_initial_states" not in source
    assert "set_state" not in source
