"""Ed25519 keys in files: what signs the log's checkpoints (C2SP signed-note, key type 0x01).

The same care as for other keys (`fltrust.keys.file`): PKCS#8 PEM, encrypted where a passphrase is given,
open to nobody else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fltrust.errors import Malformed
from fltrust.files import write_durably
from fltrust.identity import KeyId
from fltrust.keys.file import encryption_for, private_key_from_pem, read_private


class NoteSigner(Protocol):
    """Signs with one Ed25519 key that it never gives away; safe to call from many threads."""

    @property
    def public_key_raw(self) -> bytes:
        """The public key's 32 bytes (RFC 8032)."""
        ...

    @property
    def spki_der(self) -> bytes:
        """The public key's SubjectPublicKeyInfo in DER."""
        ...

    @property
    def key_id(self) -> KeyId:
        """SHA-256 of the public key's SubjectPublicKeyInfo."""
        ...

    def sign(self, data: bytes) -> bytes:
        """Pure Ed25519 over `data` (RFC 8032): 64 bytes, the same ones each time."""
        ...


class FileNoteSigner:
    """A `NoteSigner` whose private key lives in this process."""

    __slots__ = ("_key_id", "_private_key", "_raw", "_spki")

    def __init__(self, private_key: Ed25519PrivateKey) -> None:
        self._private_key = private_key
        public_key: Ed25519PublicKey = private_key.public_key()
        self._raw = public_key.public_bytes_raw()
        self._spki = public_key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self._key_id = KeyId.of_spki(self._spki)

    @property
    def public_key_raw(self) -> bytes:
        return self._raw

    @property
    def spki_der(self) -> bytes:
        return self._spki

    @property
    def key_id(self) -> KeyId:
        return self._key_id

    def sign(self, data: bytes) -> bytes:
        return self._private_key.sign(data)

    def to_pem(self, passphrase: bytes | None) -> bytes:
        """Give the private key as PKCS#8 PEM; without a passphrase that is the secret itself."""
        return self._private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption_for(passphrase)
        )

    def __repr__(self) -> str:
        return f"FileNoteSigner(key_id={self._key_id!s})"


def generate_note_key() -> FileNoteSigner:
    """Make a fresh Ed25519 key from the operating system's entropy."""
    return FileNoteSigner(Ed25519PrivateKey.generate())


def save_note_key(signer: FileNoteSigner, path: Path, *, passphrase: bytes | None) -> None:
    """Write the key durably to `path` (0600), encrypted if a passphrase is given; replaces a file whole."""
    write_durably(path, signer.to_pem(passphrase), mode=0o600)


def load_note_key(path: Path, *, passphrase: bytes | None) -> FileNoteSigner:
    """Read a key that `save_note_key` (or ``openssl genpkey``) wrote.

    Refusals as `fltrust.keys.file.load`: an exposed file, a missing, needless or wrong passphrase;
    `Malformed` for anything that is not one PKCS#8 Ed25519 key, `Oversized` above 16 KiB.
    """
    key = private_key_from_pem(read_private(path), passphrase=passphrase, where=path)
    if not isinstance(key, Ed25519PrivateKey):
        raise Malformed(f"expected an Ed25519 private key in {path}, found a key of another kind")
    return FileNoteSigner(key)
