"""Loads a compressed SmolVLA by LeRobot's own calls and predicts once; prints peaks as JSON.

python tests/first_chunk.py DIR BACKEND
"""

import json
import resource
import sys
import warnings

import lerobot_policy_einsort  # noqa: F401
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class

N_TOKENS, NOISE_WIDTH = 48, 32


def peak_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(folder: str, backend: str) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    config = PreTrainedConfig.from_pretrained(folder)
    policy_class = get_policy_class(config.type)
    after_imports = peak_bytes()
    policy = policy_class.from_pretrained(folder, config=config, backend=backend)
    batch = {
        key: torch.rand(1, *feature.shape) for key, feature in config.input_features.items()
    } | {
        "observation.language.tokens": torch.zeros(1, N_TOKENS, dtype=torch.long),
        "observation.language.attention_mask": torch.ones(1, N_TOKENS, dtype=torch.bool),
    }
    noise = torch.zeros(1, config.chunk_size, NOISE_WIDTH)
    with torch.inference_mode():
        chunk = policy.predict_action_chunk(batch, noise=noise)
    peaks = {"imports": after_imports, "peak": peak_bytes(), "finite": bool(chunk.isfinite().all())}
    print(json.dumps(peaks))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
