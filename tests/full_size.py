"""Dense checkpoints with the names and shapes of real policies, and random weights.

python tests/full_size.py smolvla DIR       450 M, float32, one file
python tests/full_size.py pi05 DIR          4.1 B, bfloat16, shards of 4 GB
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from einsort_vla.checkpoint.writer import FileWriter
from einsort_vla.layers import without_weights
from einsort_vla.lerobot import quiet_lerobot

SHARD_BYTES = 4 * 2**30
SEED = 0


def make(kind: str, folder: Path) -> None:
    """Write a policy folder."""
    folder.mkdir(parents=True)
    with quiet_lerobot():
        policy = {"smolvla": _smolvla, "pi05": _pi05}[kind](folder)
    policy.config._save_pretrained(folder)
    dtype = torch.float32 if kind == "smolvla" else torch.bfloat16
    layout = {name: (dtype, tuple(t.shape)) for name, t in policy.state_dict().items()}
    shards = _shards(layout)
    names = [f"model-{k + 1:05}-of-{len(shards):05}.safetensors" for k in range(len(shards))]
    if len(shards) == 1:
        names = ["model.safetensors"]
    else:
        weight_map = {n: file for file, own in zip(names, shards, strict=True) for n in own}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    generator = torch.Generator().manual_seed(SEED)
    for file, own in zip(names, shards, strict=True):
        writer = FileWriter(folder / file, own, {"format": "pt"})
        for name, (_, shape) in own.items():
            writer.write({name: _random(name, shape, generator).to(dtype)})
        writer.finish()


def _random(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    if len(shape) < 2:
        return torch.ones(shape) if "norm" in name and "weight" in name else torch.zeros(shape)
    scale = 1 / math.sqrt(math.prod(shape[1:]))
    return torch.randn(shape, generator=generator).mul_(scale)


def _shards(layout: dict[str, Any]) -> list[dict[str, Any]]:
    shards, size = [{}], 0
    for name, (dtype, shape) in sorted(layout.items()):
        n_bytes = dtype.itemsize * math.prod(shape)
        if shards[-1] and size + n_bytes > SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = (dtype, shape)
        size += n_bytes
    return shards


def features() -> dict[str, Any]:
    from lerobot.configs import FeatureType, PolicyFeature

    picture = PolicyFeature(FeatureType.VISUAL, (3, 224, 224))
    return {
        "input_features": {
            "observation.images.camera1": picture,
            "observation.state": PolicyFeature(FeatureType.STATE, (8,)),
        },
        "output_features": {"action": PolicyFeature(FeatureType.ACTION, (7,))},
        "device": "cpu",
        "push_to_hub": False,
    }


def _smolvla(folder: Path) -> Any:
    from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
    from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

    from policies.reference.model import Shape, build_vlm_folder

    shape = Shape(
        picture_px=512, vision_width=768, vision_layers=12, vision_heads=12, pixel_shuffle=4,
        text_width=960, text_ffn=2560, text_layers=16, text_heads=15, text_kv_heads=5,
        vocabulary=49280,
    )  # fmt: skip
    build_vlm_folder(folder / "vlm", shape)
    config = SmolVLAConfig(vlm_model_name=str(folder / "vlm"), load_vlm_weights=False, **features())
    with without_weights():
        return SmolVLAPolicy(config)


def _pi05(folder: Path) -> Any:
    from lerobot.policies.pi05.configuration_pi05 import PI05Config
    from lerobot.policies.pi05.modeling_pi05 import PI05Policy

    with without_weights():
        return PI05Policy(PI05Config(**features()))


if __name__ == "__main__":
    make(sys.argv[1], Path(sys.argv[2]))
