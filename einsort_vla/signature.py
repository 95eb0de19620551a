"""Fingerprints and signatures of files: whether they are unchanged, and who made them.

A fingerprint is a SHA-256. A signature is what `openssl pkeyutl -sign -rawin` makes with an Ed25519
key: 64 bytes over the bytes of FILE, in FILE.sig. Keys are PEM files. docs/security.md has the
commands.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from einsort_vla.errors import CheckpointError, UsageError, importing

SIGNATURE = ".sig"
_BYTES = 64
_MAX_KEY, _MAX_FILE = 10_000, 2**25  # bytes of a file with a public key, and of what is signed


def sha256(path: Path) -> str:
    """The fingerprint of a file, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):  # devices have Python 3.10, without `file_digest`
            digest.update(block)
    return digest.hexdigest()


def check_signature(file: Path, keys: Sequence[Path]) -> None:
    """Check that one of the keys has signed a file as it is now.

    Raises:
        UsageError: a key's file is missing, or holds no public Ed25519 key.
        CheckpointError: there is no signature, or it is by none of these keys or of another file.
        MissingDependency: the package cryptography is not installed.
    """
    with importing(
        "signatures cannot be checked", "Install it with: pip install 'einsort-vla[trust]'"
    ):
        from cryptography.exceptions import InvalidSignature
    trusted = [_read_key(key) for key in keys]
    signed_by = file.with_name(file.name + SIGNATURE)
    for needed in (file, signed_by):
        if not needed.is_file():
            raise CheckpointError(
                f"{file.parent} is not signed: it has no {needed.name}. Ask its maker for the "
                "signature, or leave --trust-key away if you do not need to know who made it."
            )
    with signed_by.open("rb") as opened:
        signature = opened.read(_BYTES + 1)
    if len(signature) != _BYTES:
        raise CheckpointError(
            f"{signed_by} is no signature: it must have {_BYTES} bytes, as `openssl pkeyutl -sign "
            "-rawin` makes with an Ed25519 key."
        )
    with file.open("rb") as opened:
        content = opened.read(_MAX_FILE + 1)
    if len(content) > _MAX_FILE:
        raise CheckpointError(f"{file} has more than {_MAX_FILE} bytes; no list of files has.")
    for key in trusted:
        try:
            key.verify(signature, content)
            return
        except InvalidSignature:
            continue
    raise CheckpointError(
        f"{signed_by} is not the signature of {file.name} by {' or '.join(map(str, keys))}: "
        "someone else signed it, or it was changed afterwards. Do not use it; ask its maker."
    )


def _read_key(path: Path) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        with path.open("rb") as opened:
            content = opened.read(_MAX_KEY)
    except OSError as error:
        raise UsageError(
            f"--trust-key {path} cannot be read: {error.strerror or error}."
        ) from error
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(
            f"--trust-key {path} holds no public Ed25519 key. "
            "Make one: openssl pkey -in SECRET.pem -pubout -out PUBLIC.pem"
        )
    return key
