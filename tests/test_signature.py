"""Who made a folder: signatures by keys that the user trusts."""

import shutil
import subprocess

import pytest

pytest.importorskip("cryptography")

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from einsort_vla.errors import CheckpointError, UsageError
from einsort_vla.signature import check_signature


def write_public(secret, path):
    form = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    path.write_bytes(secret.public_key().public_bytes(*form))
    return path


@pytest.fixture
def signed(tmp_path):
    """A file with its signature, the key of its maker, and that of someone else."""
    maker, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    file = tmp_path / "SHA256SUMS"
    file.write_bytes(b"a list of files")
    (tmp_path / "SHA256SUMS.sig").write_bytes(maker.sign(file.read_bytes()))
    keys = write_public(maker, tmp_path / "maker.pem"), write_public(other, tmp_path / "other.pem")
    return file, *keys


def test_one_of_the_trusted_keys_must_have_signed(signed):
    file, maker, other = signed
    check_signature(file, [maker])
    check_signature(file, [other, maker])
    with pytest.raises(CheckpointError, match=r"is not the signature of SHA256SUMS by .*other"):
        check_signature(file, [other])
    file.write_bytes(b"a list of filet")
    with pytest.raises(CheckpointError, match="someone else signed it, or it was changed"):
        check_signature(file, [maker])


def test_what_is_no_signature(signed):
    file, maker, _ = signed
    signature = file.with_name("SHA256SUMS.sig")
    for content in (b"", signature.read_bytes()[:-1], signature.read_bytes() + b"\n"):
        signature.write_bytes(content)
        with pytest.raises(CheckpointError, match="is no signature: it must have 64 bytes"):
            check_signature(file, [maker])
    signature.unlink()
    with pytest.raises(CheckpointError, match=r"is not signed: it has no SHA256SUMS\.sig"):
        check_signature(file, [maker])


def test_what_is_no_key(signed, tmp_path):
    file, maker, _ = signed
    for content in (b"", maker.read_bytes()[:60], b"ssh-ed25519 AAAA me"):
        (tmp_path / "key").write_bytes(content)
        with pytest.raises(UsageError, match="holds no public Ed25519 key"):
            check_signature(file, [maker, tmp_path / "key"])
    write_public(generate_private_key(SECP256R1()), tmp_path / "key")
    with pytest.raises(UsageError, match="holds no public Ed25519 key"):
        check_signature(file, [tmp_path / "key"])
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        check_signature(file, [tmp_path / "none"])


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl")
def test_openssl_signs_as_the_documents_say(tmp_path):
    file, secret, public = (tmp_path / name for name in ("list", "secret.pem", "public.pem"))
    file.write_text("a list")
    for command in (
        ["genpkey", "-algorithm", "ed25519", "-out", secret],
        ["pkey", "-in", secret, "-pubout", "-out", public],
        [
            "pkeyutl",
            "-sign",
            "-rawin",
            "-inkey",
            secret,
            "-in",
            file,
            "-out",
            tmp_path / "list.sig",
        ],
    ):
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    check_signature(file, [public])
    with pytest.raises(UsageError, match="openssl pkey -in SECRET"):
        check_signature(file, [secret])
