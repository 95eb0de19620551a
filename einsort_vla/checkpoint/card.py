"""The model card of a compressed folder, for people and for the hub."""

from collections import Counter
from math import prod
from pathlib import Path

from einsort_vla.checkpoint.source import DenseFolder
from einsort_vla.errors import CheckpointError
from einsort_vla.plan import Plan

CARD = "README.md"
RESULTS = "## Results\n"

_LEROBOT = ("lerobot", "robotics", "robotics, lerobot")
_TRANSFORMERS = ("transformers", "text-generation", "transformers")
_USE_LEROBOT = """With `lerobot_policy_einsort` installed, LeRobot's own commands load this folder:

    lerobot-eval --policy.path=THIS_FOLDER ...

or in Python, where a dense class would refuse it:

    from lerobot.policies.factory import get_policy_class
    policy = get_policy_class("einsort_{type}").from_pretrained("THIS_FOLDER")"""
_USE_TRANSFORMERS = """    import einsort_vla.huggingface    # registers the method
    from transformers import {model_class}
    model = {model_class}.from_pretrained("THIS_FOLDER")"""


def model_card(
    base: str, dense: DenseFolder, plan: Plan, dense_bytes: int, compressed_bytes: int
) -> str:
    """README.md of a compressed folder.

    Args:
        base: name of the dense policy.
        dense: the dense policy itself.
        plan: what each matrix was coded with.
        dense_bytes: of the dense weight files.
        compressed_bytes: of the compressed one.
    """
    library, pipeline, tags = _LEROBOT if dense.is_lerobot else _TRANSFORMERS
    use = _USE_LEROBOT if dense.is_lerobot else _USE_TRANSFORMERS
    model_class = next(iter(dense.config.get("architectures") or ["AutoModel"]))
    return f"""---
library_name: {library}
pipeline_tag: {pipeline}
tags: [{tags}, einsort, compression]
---
# {base}, compressed with EinSort

`{dense.policy_type}` model `{base}`, its linear layers at
**{plan.bits_per_weight:.3f} bits a weight** (rate {plan.rate:.4f}: that share of their bfloat16
bytes is gone, everything stored counted).
Weight file: {dense_bytes / 1e6:.2f} MB before, {compressed_bytes / 1e6:.2f} MB now.

## Use
{use.format(type=dense.policy_type, model_class=model_class)}

## Codes
| code | weights | bits a weight |
|---|---|---|
{_code_rows(plan)}

Every matrix: `einsort-vla inspect`. `einsort_manifest.json` holds the SHA-256 of each file.
"""


def write_results(folder: Path, text: str) -> None:
    """Put evaluation results into the card of a compressed folder, in the place of earlier ones.

    Args:
        folder: that `compress_folder` wrote.
        text: Markdown, without a heading.

    Raises:
        CheckpointError: the folder has no card.
    """
    card = folder / CARD
    if not card.is_file():
        raise CheckpointError(f"{folder} has no {CARD} to write results into.")
    kept = card.read_text(encoding="utf-8").partition(RESULTS)[0].rstrip()
    card.write_text(f"{kept}\n\n{RESULTS}{text.rstrip()}\n", encoding="utf-8")


def _code_rows(plan: Plan) -> str:
    weights, bits = Counter[str](), Counter[str]()
    for tensor in plan.tensors.values():
        weights[str(tensor.spec)] += prod(tensor.shape)
        bits[str(tensor.spec)] += tensor.bits
    return "\n".join(
        f"| `{code}` | {n / 1e6:.2f} M | {bits[code] / n:.3f} |"
        for code, n in weights.most_common()
    )
