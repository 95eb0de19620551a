"""The model card of a compressed policy, for people and for the hub."""

from collections import Counter
from math import prod

from einsort_vla.plan import Plan


def model_card(
    base: str, policy_type: str, plan: Plan, dense_bytes: int, compressed_bytes: int
) -> str:
    """README.md of a compressed folder.

    Args:
        base: name of the dense policy.
        policy_type: its LeRobot type.
        plan: what each matrix was coded with.
        dense_bytes: of the dense weight files.
        compressed_bytes: of the compressed one.
    """
    weights, bits = Counter[str](), Counter[str]()
    for tensor in plan.tensors.values():
        weights[str(tensor.spec)] += prod(tensor.shape)
        bits[str(tensor.spec)] += tensor.bits
    rows = "\n".join(
        f"| `{code}` | {n / 1e6:.2f} M | {bits[code] / n:.3f} |"
        for code, n in weights.most_common()
    )
    return f"""---
library_name: lerobot
pipeline_tag: robotics
tags: [robotics, lerobot, einsort, compression]
---
# {base}, compressed with EinSort

`{policy_type}` policy `{base}`, its linear layers at **{plan.bits_per_weight:.3f} bits a weight**
(rate {plan.rate:.4f}: that share of their bfloat16 bytes is gone, everything stored counted).
Weight file: {dense_bytes / 1e6:.2f} MB before, {compressed_bytes / 1e6:.2f} MB now.

## Use
With the plug-in `lerobot_policy_einsort` installed, LeRobot's own commands load this folder:

    lerobot-eval --policy.path=THIS_FOLDER ...

or in Python, where a dense class would refuse it:

    from lerobot.policies.factory import get_policy_class
    policy = get_policy_class("einsort_{policy_type}").from_pretrained("THIS_FOLDER")

## Codes
| code | weights | bits a weight |
|---|---|---|
{rows}

Every matrix: `einsort-vla inspect`. `einsort_manifest.json` holds the SHA-256 of each file.
"""
