"""Private keys in files: PKCS#8 PEM, encrypted where a passphrase is given, open to nobody else."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from fltrust.errors import Malformed, Oversized, Refused, StorageUnavailable
from fltrust.files import write_durably
from fltrust.identity import KeyId

_ALGORITHM = ec.ECDSA(SHA256())
_MAX_KEY_FILE = 16 * 1024
_MAX_PASSPHRASE = 1023  # OpenSSL's own bound


class FileSigner:
    """A `Signer` whose private key lives in this process; safe to call from many threads.

    The key object is never changed after construction, and OpenSSL signs from it without shared state.
    """

    __slots__ = ("_key_id", "_private_key", "_public_key")

    def __init__(self, private_key: ec.EllipticCurvePrivateKey) -> None:
        if not isinstance(private_key.curve, ec.SECP256R1):
            raise Malformed(f"expected a private key on P-256, got one on {private_key.curve.name}")
        self._private_key = private_key
        self._public_key = private_key.public_key()
        self._key_id = KeyId.of_spki(
            self._public_key.public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )

    @property
    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._public_key

    @property
    def key_id(self) -> KeyId:
        return self._key_id

    def sign(self, data: bytes) -> bytes:
        """ECDSA over P-256 with SHA-256, DER-encoded (FIPS 186-5)."""
        return self._private_key.sign(data, _ALGORITHM)

    def to_pem(self, passphrase: bytes | None) -> bytes:
        """Give the private key as PKCS#8 PEM, for a TLS library that takes nothing else.

        What comes out with no passphrase is the secret itself: hand it over in memory and drop it.
        """
        return self._private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption_for(passphrase)
        )

    def to_openssh(self) -> bytes:
        """Give the private key, not encrypted, as ``BEGIN OPENSSH PRIVATE KEY``: what Flower reads."""
        return self._private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )

    def __repr__(self) -> str:
        return f"FileSigner(key_id={self._key_id!s})"


def generate() -> FileSigner:
    """Make a fresh P-256 key from the operating system's entropy."""
    return FileSigner(ec.generate_private_key(ec.SECP256R1()))


def save(signer: FileSigner, path: Path, *, passphrase: bytes | None) -> None:
    """Write the key durably to `path` (0600), encrypted if a passphrase is given.

    A file already there is replaced whole. Raises `StorageUnavailable` if the disk refuses.
    """
    write_durably(path, signer.to_pem(passphrase), mode=0o600)


def load(path: Path, *, passphrase: bytes | None) -> FileSigner:
    """Read a key that `save` (or ``openssl genpkey``) wrote.

    Refuses, with a `Refused` whose reason says which: a file that group or others can touch
    (``key-file-exposed``), and a missing, needless or wrong passphrase (``passphrase-missing``,
    ``passphrase-unexpected``, ``passphrase-wrong``). `Malformed` for anything that is not one
    PKCS#8 P-256 key, `Oversized` above 16 KiB.
    """
    return from_pem(read_private(path), passphrase=passphrase, where=path)


def from_pem(pem: bytes, *, passphrase: bytes | None, where: Path) -> FileSigner:
    """Read the first private key in `pem`, which came from `where`; refusals as `load`."""
    return _p256(private_key_from_pem(pem, passphrase=passphrase, where=where), where)


def private_key_from_pem(pem: bytes, *, passphrase: bytes | None, where: Path) -> object:
    """Read the first private key in `pem`, of whatever kind; refusals as `load`."""
    encrypted = b"ENCRYPTED" in pem
    if encrypted and passphrase is None:
        raise Refused(
            f"expected a passphrase for the encrypted key in {where}, got none",
            reason="passphrase-missing",
            hint="for an agent's key, FLTRUST_PASSPHRASE_FILE names a file (0600) that holds it",
        )
    if not encrypted and passphrase is not None:
        # Silently taking it would let a key that was to be encrypted at rest lie there in the clear.
        raise Refused(
            f"expected an encrypted key in {where}, found one that is not",
            reason="passphrase-unexpected",
            hint="encrypt it, or load it without a passphrase",
        )
    try:
        return serialization.load_pem_private_key(pem, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # `from None`: the library's message may quote what it read.
        if encrypted:
            raise Refused(
                f"expected the passphrase of the key in {where}, got another (or the file is damaged)",
                reason="passphrase-wrong",
            ) from None
        raise Malformed(f"expected a private key in PKCS#8 PEM in {where}, found something else") from None


def read_private(path: Path) -> bytes:
    """Read at most 16 KiB from a file that only its owner can touch; see `load` for the refusals."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)  # of the file that is read, not of the name
            if mode & 0o077:
                raise Refused(
                    f"expected {path} to be open to its owner only, found mode {mode:04o}",
                    reason="key-file-exposed",
                    hint=f"if nobody else read it, run: chmod 600 {path}",
                )
            data = file.read(_MAX_KEY_FILE + 1)
    except FileNotFoundError as error:
        raise Malformed(f"expected a private key at {path}, found no file") from error
    except OSError as error:
        raise StorageUnavailable(f"could not read {path}: {error.strerror or error}") from error
    if len(data) > _MAX_KEY_FILE:
        raise Oversized(f"expected at most {_MAX_KEY_FILE} bytes in {path}, found more")
    return data


def _p256(key: object, path: Path) -> FileSigner:
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Malformed(f"expected a private key on P-256 in {path}, found a key of another kind")
    return FileSigner(key)


def encryption_for(passphrase: bytes | None) -> serialization.KeySerializationEncryption:
    """How a private key is written under this passphrase; `Malformed` for one that OpenSSL cannot read."""
    if passphrase is None:
        return serialization.NoEncryption()
    if not 0 < len(passphrase) <= _MAX_PASSPHRASE:
        raise Malformed(f"expected a passphrase of 1 to {_MAX_PASSPHRASE} bytes, got {len(passphrase)}")
    return serialization.BestAvailableEncryption(passphrase)
