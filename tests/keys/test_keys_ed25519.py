"""The log's key in a file: as other keys, and nothing but Ed25519."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from fltrust.errors import Malformed, Oversized, Refused
from fltrust.keys import generate, generate_note_key, load, load_note_key, save, save_note_key

SECRET = b"correct horse battery staple"


@pytest.mark.parametrize("passphrase", [None, SECRET])
def test_a_saved_note_key_comes_back_and_its_file_is_private(
    tmp_path: Path, passphrase: bytes | None
) -> None:
    signer = generate_note_key()
    save_note_key(signer, tmp_path / "k", passphrase=passphrase)
    loaded = load_note_key(tmp_path / "k", passphrase=passphrase)
    assert loaded.key_id == signer.key_id
    assert loaded.public_key_raw == signer.public_key_raw
    assert stat.S_IMODE((tmp_path / "k").stat().st_mode) == 0o600
    assert (b"ENCRYPTED" in (tmp_path / "k").read_bytes()) == (passphrase is not None)


def test_its_signature_is_plain_ed25519_and_the_same_each_time() -> None:
    signer = generate_note_key()
    signature = signer.sign(b"a note\n")
    assert len(signature) == 64
    assert signer.sign(b"a note\n") == signature
    Ed25519PublicKey.from_public_bytes(signer.public_key_raw).verify(signature, b"a note\n")


def test_openssl_reads_the_key_and_gives_the_same_public_half(tmp_path: Path) -> None:
    signer = generate_note_key()
    save_note_key(signer, tmp_path / "k", passphrase=SECRET)
    found = subprocess.run(
        ["openssl", "pkey", "-in", tmp_path / "k", "-passin", f"pass:{SECRET.decode()}", "-pubout"],
        capture_output=True,
        check=True,
    )
    key = load_pem_public_key(found.stdout)
    assert isinstance(key, Ed25519PublicKey)
    assert key.public_bytes_raw() == signer.public_key_raw


def test_a_key_that_openssl_made_is_read(tmp_path: Path) -> None:
    subprocess.run(["openssl", "genpkey", "-algorithm", "ED25519", "-out", tmp_path / "k"], check=True)
    (tmp_path / "k").chmod(0o600)
    assert len(load_note_key(tmp_path / "k", passphrase=None).sign(b"")) == 64


@pytest.mark.parametrize(
    ("saved", "given", "reason"),
    [
        (SECRET, b"wrong passphrase", "passphrase-wrong"),
        (SECRET, None, "passphrase-missing"),
        (None, SECRET, "passphrase-unexpected"),
    ],
)
def test_a_passphrase_that_does_not_fit_is_refused(
    tmp_path: Path, saved: bytes | None, given: bytes | None, reason: str
) -> None:
    save_note_key(generate_note_key(), tmp_path / "k", passphrase=saved)
    with pytest.raises(Refused) as refused:
        load_note_key(tmp_path / "k", passphrase=given)
    assert refused.value.reason == reason
    assert SECRET.decode() not in str(refused.value)


def test_keys_of_another_kind_are_told_apart(tmp_path: Path) -> None:
    save(generate(), tmp_path / "p256", passphrase=SECRET)
    with pytest.raises(Malformed, match="Ed25519"):
        load_note_key(tmp_path / "p256", passphrase=SECRET)
    save_note_key(generate_note_key(), tmp_path / "note", passphrase=SECRET)
    with pytest.raises(Malformed, match="P-256"):
        load(tmp_path / "note", passphrase=SECRET)


def test_an_exposed_or_oversized_file_is_not_read(tmp_path: Path) -> None:
    save_note_key(generate_note_key(), tmp_path / "k", passphrase=None)
    (tmp_path / "k").chmod(0o640)
    with pytest.raises(Refused) as refused:
        load_note_key(tmp_path / "k", passphrase=None)
    assert refused.value.reason == "key-file-exposed"
    (tmp_path / "big").write_bytes(b"x" * 20_000)
    (tmp_path / "big").chmod(0o600)
    with pytest.raises(Oversized):
        load_note_key(tmp_path / "big", passphrase=None)


def test_the_signer_does_not_show_its_key() -> None:
    signer = generate_note_key()
    assert repr(signer) == f"FileNoteSigner(key_id={signer.key_id})"
