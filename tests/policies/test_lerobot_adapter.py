"""The adapter against LeRobot's own loading and processors, and the reference policy itself."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from einsort_vla.errors import CheckpointError, UsageError
from einsort_vla.layers import CompressedLinear
from policies.lerobot_adapter import load
from policies.protocol import Policy
from tests.compressing import compress

ROOT = Path(__file__).parents[2]
TASK = "pick up the milk and place it in the basket"


@pytest.fixture(scope="module")
def observation():
    rng = np.random.default_rng(0)
    return {
        "observation.images.image": rng.integers(0, 256, (128, 128, 3), np.uint8),
        "observation.images.image2": rng.integers(0, 256, (128, 128, 3), np.uint8),
        "observation.state": rng.normal(size=8).astype(np.float32),
        "task": TASK,
    }


@pytest.fixture(scope="module")
def policy(reference_policy):
    return load(str(reference_policy))


def test_parity_with_lerobot_itself(policy, reference_policy, observation, monkeypatch):
    from lerobot.policies.factory import make_pre_post_processors
    from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

    monkeypatch.chdir(ROOT)  # their loader takes the backbone's folder as config.json has it
    theirs = SmolVLAPolicy.from_pretrained(str(reference_policy)).float().eval()
    pre, post = make_pre_post_processors(theirs.config, pretrained_path=str(reference_policy))
    batch = {
        key: torch.from_numpy(value).permute(2, 0, 1).float() / 255 if "images" in key
        else value if key == "task" else torch.from_numpy(value)
        for key, value in observation.items()
    }  # fmt: skip
    torch.manual_seed(0)
    with torch.inference_mode():
        expected = post(theirs.predict_action_chunk(pre(batch)))[0].numpy()
    policy.reset(0)
    assert np.array_equal(policy.predict_action_chunk(observation), expected)


def test_noise_follows_the_seed_and_the_chunk_number(policy, observation):
    policy.reset(5)
    first, second = (policy.predict_action_chunk(observation) for _ in range(2))
    policy.reset(5)
    assert np.array_equal(policy.predict_action_chunk(observation), first)
    policy.reset(6)
    assert not np.array_equal(policy.predict_action_chunk(observation), first)
    assert not np.array_equal(first, second)


def test_a_chunk_has_the_size_that_the_policy_says(policy, observation):
    assert isinstance(policy, Policy)
    assert policy.predict_action_chunk(observation).shape == (policy.chunk_size, 7)


def test_compression_is_counted_over_all_linear_layers_in_use(reference_policy, tmp_path, policy):
    summary = compress(reference_policy, tmp_path / "c", 0.5)
    linear = {
        f"{name}.weight"
        for name, module in policy.module.named_modules()
        if isinstance(module, torch.nn.Linear) and "lm_head" not in name
    }
    assert set(summary.plan.tensors) == linear
    share = summary.plan.n_weights / sum(p.numel() for p in policy.module.parameters())
    assert share > 0.9
    compressed = load(str(tmp_path / "c"))
    replaced = [m for m in compressed.module.modules() if isinstance(m, CompressedLinear)]
    assert len(replaced) == len(linear)


@pytest.mark.parametrize(("rate", "tolerance"), [(0.5, 0.05), (0.75, 0.3)])
def test_compressed_actions_stay_close(
    reference_policy, tmp_path, policy, observation, rate, tolerance
):
    compress(reference_policy, tmp_path / "c", rate)
    compressed = load(str(tmp_path / "c"))
    for one in (policy, compressed):
        one.reset(0)
    dense_chunk = policy.predict_action_chunk(observation)
    missing = compressed.predict_action_chunk(observation) - dense_chunk
    # Not the largest one: a gripper that is about to turn may do so at another step.
    assert 0 < np.sqrt(np.square(missing).mean()) < tolerance


def test_a_missing_camera_is_named(policy, observation):
    lacking = {k: v for k, v in observation.items() if not k.endswith("image2")}
    message = (
        "needs the cameras observation.images.image2; the observation has observation.images.image"
    )
    with pytest.raises(UsageError, match=message):
        policy.predict_action_chunk(lacking)


def test_a_sharded_policy_is_the_same(reference_policy, tmp_path, policy):
    folder = shutil.copytree(reference_policy, tmp_path / "sharded")
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(state)
    shards = {"model-1-of-2.safetensors": names[::2], "model-2-of-2.safetensors": names[1::2]}
    for file, own in shards.items():
        save_file({name: state[name] for name in own}, folder / file)
    weight_map = {name: file for file, own in shards.items() for name in own}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    loaded, expected = load(str(folder)).module.state_dict(), policy.module.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())
    (folder / "model-2-of-2.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lacks model-2-of-2\.safetensors of its 2"):
        load(str(folder))


def test_damaged_policies_are_refused(reference_policy, tmp_path):
    def broken(name, change):
        folder = tmp_path / name
        shutil.copytree(reference_policy, folder)
        change(folder)
        return str(folder)

    def truncate(folder):
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1_000_000])

    def rename_type(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "type": "smolvlm"}))

    def widen(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "expert_width_multiplier": 0.5}))

    with pytest.raises(CheckpointError, match="damaged or truncated"):
        load(broken("truncated", truncate))
    with pytest.raises(CheckpointError, match="type 'smolvlm', which LeRobot does not know"):
        load(broken("unknown", rename_type))
    with pytest.raises(CheckpointError, match=r"does not fit its config.json"):
        load(broken("widened", widen))
    with pytest.raises(CheckpointError, match=r"no policy_preprocessor.json"):
        load(broken("bare", lambda f: (f / "policy_preprocessor.json").unlink()))
    with pytest.raises(CheckpointError, match="does not exist"):
        load(str(tmp_path / "nowhere"))
