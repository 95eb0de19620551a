"""What the layers of a language model see while it reads a text, and what that means."""

# pyright: reportPrivateImportUsage=false

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoConfig, AutoTokenizer

from einsort_vla.checkpoint import DenseFolder, check_tokenizer_folder, model_class
from einsort_vla.errors import CheckpointError, EinSortError, cut, panics_as_errors, reason_of
from einsort_vla.families import without_foreign_code
from einsort_vla.plan import LayerStatistics

BLOCK_TOKENS = 512  # that a text is read in
CHARACTERS_A_TOKEN = 64  # more than any text has on the average


def watch_text(
    dense: DenseFolder, text: Path, statistics: LayerStatistics, max_tokens: int = 32768
) -> int:
    """Add what a language model's layers see while it reads a text, and how it moves the next
    tokens; the number of tokens read.

    Args:
        dense: a Transformers model with its tokenizer.
        text: a UTF-8 file, read from its beginning in blocks of 512 tokens.
        statistics: what is added to.
        max_tokens: how many are enough.

    Raises:
        CheckpointError: there is no such text, it has less than a block, no tokenizer goes with the
            model, or the model does not read text.
    """
    layers_of = {n: own.removesuffix(".weight") for n, own in dense.in_model.items()}
    block = _block_of(dense)
    ids = _tokens(dense, text, max_tokens)
    blocks = ids[: len(ids) // block * block].view(-1, block)
    if not len(blocks):
        raise CheckpointError(f"{text} has {len(ids)} tokens; at least {block} are needed.")
    model = _load(dense)
    layers = {name: model.get_submodule(path) for name, path in layers_of.items()}
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    with statistics.observing_effects(layers):
        for own in blocks[:, None]:
            _feel(_read(model, own, dense.folder), generator)
    return blocks.numel()


def _feel(output: Any, generator: torch.Generator) -> None:
    """Take gradients of the log-likelihood of tokens that the model itself would choose.

    Their mean outer product is the Fisher information, the Hessian of the Kullback-Leibler
    divergence that errors cause. A model without logits has none: its inputs all count alike.
    """
    logits = getattr(output, "logits", None)
    if logits is None or logits.ndim != 3 or not logits.requires_grad:
        return
    rows = logits.flatten(0, 1).float()
    chosen = torch.multinomial(rows.detach().softmax(1), 1, generator=generator)[:, 0]
    functional.cross_entropy(rows, chosen, reduction="sum").backward()


def _load(dense: DenseFolder) -> Any:
    """The model, in float32; no code of its folder runs."""
    kind = model_class(dense.folder, dense.config)
    try:
        with without_foreign_code():
            own = {"dtype": torch.float32, "use_safetensors": True}
            return kind.from_pretrained(dense.folder, **own).eval()
    except EinSortError:
        raise
    except Exception as error:  # whatever a damaged file beside the weights raises
        raise CheckpointError(
            f"{dense.folder} cannot be loaded by Transformers, so a text cannot calibrate it: "
            f"{cut(reason_of(error))}"
        ) from error


def _block_of(dense: DenseFolder) -> int:
    """Tokens that are read at once: BLOCK_TOKENS, or as many as the model has positions for."""
    own = AutoConfig.from_pretrained(dense.folder, trust_remote_code=False).get_text_config()
    positions = getattr(own, "max_position_embeddings", None)
    return min(BLOCK_TOKENS, positions) if isinstance(positions, int) else BLOCK_TOKENS


def _tokens(dense: DenseFolder, text: Path, max_tokens: int) -> Tensor:
    """(n,) the first tokens of a text."""
    try:
        with text.open(encoding="utf-8") as file:
            content = file.read(max_tokens * CHARACTERS_A_TOKEN)
    except UnicodeDecodeError as error:
        raise CheckpointError(f"the text {text} is not UTF-8; save it as UTF-8.") from error
    except OSError as error:
        raise CheckpointError(f"the text {text} cannot be read: {error.strerror}.") from error
    check_tokenizer_folder(dense.folder)
    lack = f"{dense.folder} has no tokenizer that can be read; put the files of the model's there"
    try:
        with panics_as_errors(), without_foreign_code():
            tokenizer = AutoTokenizer.from_pretrained(dense.folder, trust_remote_code=False)
            is_made_up = len(tokenizer) <= len(tokenizer.all_special_tokens)  # where no file is
            tokens = tokenizer(content, return_tensors="pt", verbose=False).input_ids
    except Exception as error:  # whatever a missing or damaged tokenizer raises
        raise CheckpointError(f"{lack} ({reason_of(error)}).") from error
    if is_made_up:
        raise CheckpointError(f"{lack}.")
    return tokens[0, :max_tokens]


def _read(model: Any, tokens: Tensor, folder: Path) -> Any:
    """What one pass gives; an encoder and its decoder both read the text."""
    more = {"decoder_input_ids": tokens} if model.config.is_encoder_decoder else {}
    try:
        return model(input_ids=tokens, **more)
    except Exception as error:  # a model of pictures or sounds, a tokenizer of another model
        raise CheckpointError(
            f"{folder} cannot be calibrated by a text: {type(model).__name__} does not read it "
            f"({reason_of(error)}). Compress it without --calibrate."
        ) from error
