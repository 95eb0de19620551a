"""Fixtures that several stages share."""

import json
import os
from pathlib import Path

import hypothesis
import pytest
import torch
from safetensors.torch import save_file

hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")  # a failure is one on every machine, and again

REFERENCE_POLICY = Path(__file__).parents[1] / "policies" / "checkpoints" / "reference-libero"


@pytest.fixture(autouse=True, scope="session")
def as_many_threads_as_stated():
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))


@pytest.fixture(autouse=True, scope="session")
def remembered_apart(tmp_path_factory):
    """What tests have this machine remember is not the user's."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture
def tiny_policy_folder(tmp_path):
    """A folder with the shape of a dense SmolVLA checkpoint, of a few matrices."""
    folder = tmp_path / "dense"
    (folder / "vlm").mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)

    def weight(*shape):
        return torch.randn(*shape, generator=generator).bfloat16()

    tensors = {
        "model.first.weight": weight(96, 64),
        "model.first.bias": weight(96),
        "model.second.weight": weight(33, 96),
        "model.norm.weight": weight(96),
        "model.embed_tokens.weight": weight(16, 64),
        "model.lm_head.weight": weight(16, 64),
    }
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"type": "smolvla", "chunk_size": 8}))
    (folder / "policy_preprocessor.json").write_text("{}")
    (folder / "vlm" / "tokenizer.json").write_text("{}")
    (folder / "README.md").write_text("the dense policy")
    return folder


@pytest.fixture(scope="session")
def reference_policy():
    return REFERENCE_POLICY
