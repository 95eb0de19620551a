"""Compressed policies load by LeRobot's own calls; dense classes refuse them."""

import json
import shutil

import pytest
import torch

from einsort_vla.checkpoint import read_folder
from einsort_vla.checkpoint.tokenizer import TOKENIZER_FILES
from einsort_vla.errors import CheckpointError
from einsort_vla.families import FAMILIES
from einsort_vla.layers import CompressedLinear
from einsort_vla.lerobot import load_policy, quiet_lerobot
from tests.compressing import compress

pytest.importorskip("lerobot")


@pytest.fixture(scope="module")
def compressed(reference_policy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compressed") / "policy"
    compress(reference_policy, folder, 0.75)
    return folder


@pytest.fixture(scope="module", autouse=True)
def plugins():
    from lerobot.utils.import_utils import register_third_party_plugins

    register_third_party_plugins()


def load_with_lerobot(folder, **options):
    from lerobot.configs import PreTrainedConfig
    from lerobot.policies.factory import get_policy_class

    config = PreTrainedConfig.from_pretrained(str(folder))
    with quiet_lerobot():
        return get_policy_class(config.type).from_pretrained(str(folder), **options)


def test_every_family_has_a_type():
    from lerobot.configs import PreTrainedConfig

    assert {f"einsort_{name}" for name in FAMILIES} <= PreTrainedConfig.get_known_choices().keys()


def test_lerobot_loads_what_our_adapter_loads(compressed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # nothing depends on where the dense policy lay
    policy = load_with_lerobot(compressed)
    assert policy.name == policy.config.type == "einsort_smolvla"
    assert not policy.training
    coded = [m for m in policy.modules() if isinstance(m, CompressedLinear)]
    assert len(coded) == 92
    assert not any(p.is_meta for p in policy.parameters())
    ours = load_policy(str(compressed)).module.state_dict()
    theirs = policy.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(theirs[name], tensor) for name, tensor in ours.items())


def test_the_preprocessor_carries_its_tokenizer(
    compressed, reference_policy, tmp_path, monkeypatch
):
    from lerobot.policies.factory import make_pre_post_processors

    task = "pick up the milk and place it in the basket"
    observation = {"task": task, "observation.state": torch.zeros(8)}
    dense = load_policy(str(reference_policy)).preprocess(dict(observation))
    monkeypatch.chdir(tmp_path)
    with quiet_lerobot():
        policy = load_with_lerobot(compressed)
        preprocess, _ = make_pre_post_processors(policy.config, pretrained_path=str(compressed))
        found = preprocess(dict(observation))
        preprocess.save_pretrained(tmp_path / "saved")
    assert torch.equal(found["observation.language.tokens"], dense["observation.language.tokens"])
    saved = json.loads(next((tmp_path / "saved").glob("*.json")).read_text())
    step = next(s for s in saved["steps"] if s["registry_name"] == "einsort_tokenizer")
    assert (tmp_path / "saved" / step["state_file"]).is_file()


def test_the_dense_class_refuses_a_compressed_folder(compressed, tmp_path):
    """Without the plug-in its type is unknown; with the dense type it must not load nothing."""
    from lerobot.configs import PreTrainedConfig

    config = json.loads((compressed / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"type": "einsort_unknown"}))
    with pytest.raises(ValueError, match="is not registered"):
        PreTrainedConfig.from_pretrained(str(tmp_path))


def test_a_damaged_folder_is_refused(compressed, tmp_path):
    folder = shutil.copytree(compressed, tmp_path / "copy")
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-100] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="not the file that was written"):
        load_with_lerobot(folder)


def test_what_was_loaded_is_saved_as_a_compressed_policy(compressed, tmp_path, monkeypatch):
    """As a checkpoint of lerobot-train: coded weights as they are, and what training changed."""
    folder = shutil.copytree(compressed, tmp_path / "first")
    policy = load_with_lerobot(folder)
    name, bias = next((n, p) for n, p in policy.named_parameters() if n.endswith(".bias"))
    bias.data += 1e-3
    policy.config.n_action_steps = 2
    (tmp_path / "secret").write_text("of this machine")
    (folder / "vlm" / "more.json").symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointError, match=r"more\.json is a link that leads out of"):
        policy.save_pretrained(tmp_path / "stolen")
    assert not (tmp_path / "stolen" / "model.safetensors").exists()
    (folder / "vlm" / "more.json").unlink()
    policy.save_pretrained(tmp_path / "second")
    shutil.rmtree(folder)  # nothing depends on where it lay
    monkeypatch.chdir(tmp_path)
    again = load_policy(str(tmp_path / "second"))
    assert again.n_action_steps == 2
    found, expected = again.module.state_dict(), policy.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[n], tensor) for n, tensor in expected.items())
    first, second = (read_folder(f) for f in (compressed, tmp_path / "second"))
    assert second.plan == first.plan
    types = {n: t.dtype for n, t in first.dense.items()}
    assert {n for n, t in second.dense.items() if t.dtype != types[n]} <= {name}
    config = json.loads((tmp_path / "second" / "config.json").read_text())
    assert str(tmp_path) not in json.dumps(config)

    layer = next(n for n, m in policy.named_modules() if isinstance(m, CompressedLinear))
    policy.set_submodule(layer, policy.get_submodule(layer).decoded())
    with pytest.raises(CheckpointError, match="no longer coded"):
        policy.save_pretrained(tmp_path / "third")


def test_an_adapter_is_refused_when_the_config_is_read(compressed, tmp_path):
    """With use_peft LeRobot goes on to load what the adapter names, without asking us."""
    from lerobot.configs import PreTrainedConfig

    config = json.loads((compressed / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"use_peft": True}))
    with pytest.raises(Exception, match=r"instantiate|use_peft") as caught:
        PreTrainedConfig.from_pretrained(str(tmp_path))
    causes = [caught.value, caught.value.__cause__, caught.value.__context__]
    assert any(isinstance(cause, CheckpointError) for cause in causes)


def test_the_stored_tokenizer_is_that_of_transformers(reference_policy):
    from lerobot_policy_einsort.processor_einsort import tokenizer_of
    from transformers import AutoTokenizer

    folder = reference_policy / "vlm"
    theirs = AutoTokenizer.from_pretrained(folder)
    names = [name for name in TOKENIZER_FILES if (folder / name).is_file()]
    ours = tokenizer_of({name: (folder / name).read_bytes() for name in names})
    texts = ["put the bowl on the plate\n", "", "  ünï <image> <|im_start|>", "pick " * 400]
    options = {"padding": "max_length", "max_length": 24, "truncation": True}
    for side in ("left", "right"):
        one, other = (t(texts, padding_side=side, **options) for t in (ours, theirs))
        assert one["input_ids"] == other["input_ids"]
        assert one["attention_mask"] == other["attention_mask"]
    assert (ours.padding_side, ours.pad_token_id) == (theirs.padding_side, theirs.pad_token_id)
