"""A family is one value: what is registered is compressed, loaded, and refused where it says so."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("lerobot")

from lerobot.configs import FeatureType, PolicyFeature, PreTrainedConfig
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.processor import DeviceProcessorStep, PolicyProcessorPipeline
from lerobot_policy_einsort import configuration_einsort

from einsort_vla.checkpoint import read_folder
from einsort_vla.errors import CheckpointError, UsageError
from einsort_vla.export import GraphOptions, export_bundle, find_target
from einsort_vla.families import FAMILIES, Family
from einsort_vla.layers import CompressedLinear
from einsort_vla.lerobot import compressed_prefix, load_policy
from tests.compressing import compress

WIDTH, CHUNK = 64, 4
STATE = "observation.state"
MADE_UP = Family(
    "made_up",
    dense={"*words.weight": "a look-up table"},
    dropped={"*critic.*": "never used in inference"},
    rename=lambda stored: {name.replace(".brain.", ".body."): t for name, t in stored.items()},
    settings={"asks_the_hub": False},
)


@PreTrainedConfig.register_subclass("made_up")
@dataclass
class MadeUpConfig(PreTrainedConfig):
    chunk_size: int = CHUNK
    n_action_steps: int = CHUNK
    asks_the_hub: bool = True
    observation_delta_indices = action_delta_indices = reward_delta_indices = None

    def get_optimizer_preset(self):
        raise NotImplementedError

    def get_scheduler_preset(self):
        raise NotImplementedError

    def validate_features(self):
        raise NotImplementedError


configuration_einsort.register(MADE_UP.name)  # as the plug-in does for each when imported


class MadeUpPolicy(PreTrainedPolicy):
    """Like every policy of LeRobot, beside its config and named as it."""

    config_class = MadeUpConfig
    name = "made_up"

    def __init__(self, config):
        super().__init__(config)
        assert not config.asks_the_hub
        self.model = nn.Module()
        self.model.words = nn.Embedding(16, WIDTH)
        self.model.body = nn.Linear(WIDTH, WIDTH)
        self.model.critic = nn.Linear(WIDTH, 1)

    def predict_action_chunk(self, batch):
        return self.model.body(batch[STATE] + self.model.words.weight[:CHUNK])[None]

    def _unused(self, *_):
        raise NotImplementedError

    get_optim_params = reset = forward = select_action = _unused


@pytest.fixture
def dense(tmp_path, monkeypatch):
    """A checkpoint of a policy that nothing knows but one value in the registry."""
    monkeypatch.setitem(FAMILIES, MADE_UP.name, MADE_UP)
    features = {STATE: PolicyFeature(FeatureType.STATE, (WIDTH,))}
    answers = {"action": PolicyFeature(FeatureType.ACTION, (WIDTH,))}
    config = MadeUpConfig(
        input_features=features, output_features=answers, device="cpu", asks_the_hub=False
    )
    torch.manual_seed(0)
    policy = MadeUpPolicy(config)
    config.asks_the_hub = True
    tensors = {name.replace(".body.", ".brain."): t for name, t in policy.state_dict().items()}
    folder = tmp_path / "dense"
    policy.save_pretrained(folder, state_dict=tensors)
    for name in ("policy_preprocessor", "policy_postprocessor"):
        steps = [DeviceProcessorStep("cpu")] if "pre" in name else []
        PolicyProcessorPipeline(steps=steps, name=name).save_pretrained(folder)
    return folder


def test_one_value_is_a_family(dense, tmp_path):
    compressed = tmp_path / "compressed"
    compress(dense, compressed, 0.4)
    content = read_folder(compressed)
    assert content.coded.keys() == {"model.brain.weight"}
    assert content.dropped.keys() == {"model.critic.weight", "model.critic.bias"}

    seen = {STATE: np.ones(WIDTH, np.float32), "task": "wave"}
    first, second = load_policy(str(dense)), load_policy(str(compressed))
    assert second.module.config.type == "einsort_made_up"
    assert isinstance(second.module.model.body, CompressedLinear)
    expected, found = first.chunk(seen, 0), second.chunk(seen, 0)
    assert 0 < np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)
    assert second.layers(content.coded) == {"model.brain.weight": second.module.model.body}

    target = find_target("cpu")
    with pytest.raises(UsageError, match="type 'made_up' are not exported; those of smolvla, pi0"):
        export_bundle(compressed, tmp_path / "bundle", target, GraphOptions())
    with (
        pytest.raises(UsageError, match="type 'made_up' keep no prefix; those of smolvla, pi0"),
        compressed_prefix(second),
    ):
        pass


class LooksBack(MadeUpPolicy):
    """Its config knows no chunks, as that of Diffusion Policy, which looks several steps back."""

    def __init__(self, config):
        super().__init__(config)
        self.config = SimpleNamespace(type="made_up")


def test_policies_without_chunks_are_left_to_lerobot(dense, monkeypatch):
    monkeypatch.setattr(f"{__name__}.MadeUpPolicy", LooksBack)  # LeRobot finds it by its name
    with pytest.raises(CheckpointError, match=r"'made_up' do not answer .* has no chunk_size"):
        load_policy(str(dense))
