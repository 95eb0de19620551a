"""The model card of a compressed folder, for people and for the hub."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from math import prod
from pathlib import Path

from einsort_vla.atomic import write_text
from einsort_vla.checkpoint.source import DenseFolder
from einsort_vla.errors import CheckpointError, shown
from einsort_vla.plan import Plan
from einsort_vla.reading import read_text

CARD = "README.md"
RESULTS = "## Results\n"
# Comments around what `write_results` wrote, with its fingerprint, so that an edit is seen.
_BEGIN, _END = "<!-- einsort-vla results", "<!-- end of einsort-vla results -->"
_BLOCK = re.compile(
    re.escape(_BEGIN) + r" sha256=(?P<digest>[0-9a-f]+) -->\r?\n(?P<text>.*?)" + re.escape(_END),
    re.DOTALL,
)

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
    base: str,
    dense: DenseFolder,
    plan: Plan,
    dense_bytes: int,
    compressed_bytes: int,
    notes: Sequence[str] = (),
) -> str:
    """README.md of a compressed folder.

    Args:
        base: name of the dense policy.
        dense: the dense policy itself.
        plan: what each matrix was coded with.
        dense_bytes: of the dense weight files.
        compressed_bytes: of the compressed one.
        notes: sentences on the files beside it.
    """
    base = shown(base)
    beside = "".join(f"{_as_text(note)}\n" for note in notes)
    library, pipeline, tags = _LEROBOT if dense.is_lerobot else _TRANSFORMERS
    if dense.is_lerobot:
        use = _USE_LEROBOT.format(type=dense.policy_type)
    else:
        use = _USE_TRANSFORMERS.format(model_class=dense.config["architectures"][0])
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
{beside}
## Use
{use}

## Codes
| code | weights | bits a weight |
|---|---|---|
{_code_rows(plan)}

Every matrix: `einsort-vla inspect`. `einsort_manifest.json` holds the SHA-256 of each file.
"""


def write_results(folder: Path, text: str) -> None:
    """Put evaluation results into the card of a compressed folder, in the place of earlier ones.

    They stand between two comments that a page does not show, at the end of the card at first.
    All outside of them is left as it is; the same text twice changes nothing.

    Args:
        folder: that `compress_folder` wrote.
        text: Markdown, without a heading of the first or second level.

    Raises:
        CheckpointError: the folder has no card, it is no UTF-8, or the results in it were edited.
    """
    card, content = folder / CARD, read_card(folder)
    block = _block(text)
    found = _BLOCK.search(content)
    if found:
        new = content[: found.start()] + block + content[found.end() :]
    else:
        new = f"{content.rstrip()}\n\n{block}\n"
    if new == content:
        return
    write_text(card, new)


def read_card(folder: Path) -> str:
    """The card of a compressed folder, once it is sure that results can be written into it.

    Raises:
        CheckpointError: the folder has no card, it is no UTF-8, or the results in it were edited.
    """
    card = folder / CARD
    if not card.is_file():
        raise CheckpointError(f"{folder} has no {CARD} to write results into.")
    content = read_text(card)  # its line ends stay as they are
    found = list(_BLOCK.finditer(content))
    whole = len(found) == content.count(_BEGIN) == content.count(_END) and len(found) <= 1
    if not whole or any(_digest(block["text"]) != block["digest"] for block in found):
        raise CheckpointError(
            f"the results in {card} were edited, and would be written over. Move what you wrote "
            f"out of the two comments `{_BEGIN}...` and `{_END}`, or delete the comments to keep "
            "it all; then write the results again."
        )
    return content


def _as_text(note: str) -> str:
    """Markdown of a sentence with the names of files, which are other people's."""
    return re.sub(r"([\\`*_\[\]<>#|])", r"\\\1", note)


def _block(text: str) -> str:
    results = f"{RESULTS}{text.rstrip()}\n"
    return f"{_BEGIN} sha256={_digest(results)} -->\n{results}{_END}"


def _digest(results: str) -> str:
    unified = results.replace("\r\n", "\n")  # an editor may have changed all line ends
    return hashlib.sha256(unified.encode()).hexdigest()[:16]


def _code_rows(plan: Plan) -> str:
    weights, bits = Counter[str](), Counter[str]()
    for tensor in plan.tensors.values():
        weights[str(tensor.spec)] += prod(tensor.shape)
        bits[str(tensor.spec)] += tensor.bits
    return "\n".join(
        f"| `{code}` | {n / 1e6:.2f} M | {bits[code] / n:.3f} |"
        for code, n in weights.most_common()
    )
