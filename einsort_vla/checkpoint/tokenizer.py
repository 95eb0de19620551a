"""What a tokenizer of others may ask for, checked before Transformers is given it.

The library behind it believes its file: a few rules there make gigabytes of a sentence, and some
that are damaged end in a panic, not in an error.
"""

import base64
import binascii
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from einsort_vla.errors import CheckpointError
from einsort_vla.reading import check_file, is_own_file, parse_json, read_object

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
MAX_ADDED = 2**14  # tokens beside the vocabulary; each is looked for in every text
MAX_TOKEN = 256  # characters of one of these
MAX_GROWTH = 256  # of a text by its normalizers
MAX_PIECES = 64  # that are put around a text
MAX_FILE = 2**27  # bytes; those of vocabularies with many languages have 2^25
_TOKENIZER, _CONFIG, _ = TOKENIZER_FILES

TokenText = Annotated[str, Meta(max_length=MAX_TOKEN)]


class _Added(Struct):
    content: TokenText


class _Tokenizer(Struct):
    """Of tokenizer.json what decides how long its work takes; the vocabulary is passed over."""

    added_tokens: Annotated[list[_Added], Meta(max_length=MAX_ADDED)] = []
    normalizer: dict[str, Any] | None = None
    post_processor: dict[str, Any] | None = None


def check_tokenizer_folder(folder: Path) -> None:
    """Check the tokenizer of a folder, if it has one; see `check_tokenizer_json`.

    Raises:
        CheckpointError: it is damaged, or names a file elsewhere.
    """
    if (folder / _TOKENIZER).exists():
        check_file(folder / _TOKENIZER)
        with (folder / _TOKENIZER).open("rb") as file:
            check_tokenizer_json(file.read(MAX_FILE + 1), str(folder / _TOKENIZER))
    if (folder / _CONFIG).exists():
        for key, value in read_object(folder / _CONFIG).items():
            if key.endswith("_file") and isinstance(value, str) and _is_elsewhere(value, folder):
                raise CheckpointError(
                    f"{folder / _CONFIG}: {key} is {value[:99]!r}, which is no file of this "
                    "folder. Take it out."
                )


def _is_elsewhere(name: str, folder: Path) -> bool:
    """Whether a name leads to something that is there, outside of a folder."""
    path = Path(name)
    return "\0" not in name and path.exists() and not is_own_file(path, folder)


def check_tokenizer_json(content: bytes, source: str) -> None:
    """Refuse a tokenizer.json that makes too much of a text.

    Args:
        content: of the file.
        source: what errors call it.

    Raises:
        CheckpointError: it is damaged, or beyond a bound.
    """
    if len(content) > MAX_FILE:
        raise CheckpointError(f"{source} has more than {MAX_FILE} bytes; such a file is not read.")
    found = parse_json(content, _Tokenizer, source)
    try:
        growth = math.prod(_growth(rule) for rule in _rules(found.normalizer))
        n_pieces = sum(map(_pieces, _rules(found.post_processor)))
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{source} is damaged: {error}.") from error
    if growth > MAX_GROWTH:
        raise CheckpointError(
            f"{source}: its normalizers may make a text {growth:.3g} times as long; "
            f"{MAX_GROWTH} times is the most."
        )
    if n_pieces > MAX_PIECES:
        raise CheckpointError(
            f"{source}: its post_processor puts {n_pieces} tokens around a text; {MAX_PIECES} are "
            "the most."
        )


def _rules(rule: object) -> Iterator[Mapping[str, Any]]:
    """A rule, or those that it is a sequence of."""
    if not isinstance(rule, Mapping):
        return
    inner = rule.get("normalizers", rule.get("processors"))
    if rule.get("type") == "Sequence" and isinstance(inner, list):
        for each in inner:
            yield from _rules(each)
    else:
        yield rule


def _growth(rule: Mapping[str, Any]) -> float:
    """How many times as long a text can get by one normalizer."""
    if rule.get("type") == "Precompiled":
        return _longest(rule.get("precompiled_charsmap"))
    if rule.get("type") != "Replace":
        return 1
    pattern, content = rule.get("pattern"), len(rule.get("content") or "")
    text = pattern.get("String") if isinstance(pattern, Mapping) else None
    return max(1, content / len(text)) if text else 1 + content


def _longest(charsmap: object) -> int:
    """Bytes of the longest text that a character is replaced by: sentencepiece's rules.

    They are the length of a trie, the trie, and the texts, each with a zero at its end.
    """
    if not charsmap:
        return 1
    if not isinstance(charsmap, str):
        raise TypeError("precompiled_charsmap is no text")
    try:
        raw = base64.b64decode(charsmap, validate=True)
    except binascii.Error as error:
        raise ValueError(f"precompiled_charsmap: {error}") from error
    n_trie = int.from_bytes(raw[:4], "little")
    texts = raw[4 + n_trie :]
    if not 0 < n_trie <= len(raw) - 4 or n_trie % 4 or not texts.endswith(b"\0"):
        raise ValueError("precompiled_charsmap is cut off")
    return max(map(len, texts.split(b"\0")))


def _pieces(rule: Mapping[str, Any]) -> int:
    """Tokens that one rule of a post-processor puts around a text."""
    special = rule.get("special_tokens")
    ids = [own.get("ids") for own in special.values()] if isinstance(special, Mapping) else []
    templates = [rule.get("single"), rule.get("pair")]
    return sum(len(own) for own in (*ids, *templates) if isinstance(own, list))
