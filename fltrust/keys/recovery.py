"""The recovery key: what retained updates are sealed to, and the only thing that opens them.

A P-256 key. The public half is a PEM file that may lie anywhere; the private half is an encrypted PKCS#8 file
that belongs where no training code runs. A secret is sealed to it by HPKE (RFC 9180, base mode) with
DHKEM(P-256, HKDF-SHA256), HKDF-SHA256 and AES-256-GCM; `context` is bound in as its info.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from fltrust.errors import Conflict, Malformed, Refused
from fltrust.files import read_bounded, write_durably
from fltrust.identity import KeyId
from fltrust.keys.file import encryption_for, private_key_from_pem, read_private
from fltrust.keys.openssh import spki_der

_SUITE = Suite(KEM.P256, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_MAX_PUBLIC = 4 * 1024


class RecoveryRecipient:
    """The public half: seals, and cannot open."""

    __slots__ = ("_public_key", "key_id")

    def __init__(self, public_key: ec.EllipticCurvePublicKey) -> None:
        if not isinstance(public_key.curve, ec.SECP256R1):
            raise Malformed(f"expected a recovery key on P-256, got one on {public_key.curve.name}")
        self._public_key = public_key
        self.key_id = KeyId.of_spki(spki_der(public_key))

    @classmethod
    def read(cls, path: Path) -> RecoveryRecipient:
        """Read the PEM file that `create` wrote; a private key is refused."""
        pem = read_bounded(path, limit=_MAX_PUBLIC)
        try:
            key = serialization.load_pem_public_key(pem)
        except ValueError:
            key = None
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise Malformed(
                f"expected the public half of a recovery key in {path}, found something else",
                hint="fltrust rounds recovery-key makes the pair",
            )
        return cls(key)

    def seal(self, secret: bytes, *, context: bytes) -> bytes:
        return _SUITE.encrypt(secret, self._public_key, info=context)


class RecoveryKey:
    """The private half."""

    __slots__ = ("_private_key", "recipient")

    def __init__(self, private_key: ec.EllipticCurvePrivateKey) -> None:
        self._private_key = private_key
        self.recipient = RecoveryRecipient(private_key.public_key())

    @property
    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._private_key.public_key()

    @classmethod
    def create(cls, path: Path, *, passphrase: bytes) -> RecoveryKey:
        """Make a pair: the private half, encrypted, in `path` (0600), the public half in ``<path>.pub``.

        `Conflict` if either is there: whoever overwrites a recovery key loses what was sealed to it.
        """
        public = path.with_name(f"{path.name}.pub")
        for there in (path, public):
            if there.exists():
                raise Conflict(f"expected nothing at {there}, found a file", hint="choose another name")
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption_for(passphrase)
        )
        write_durably(path, pem, mode=0o600)
        spki = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        write_durably(public, spki, mode=0o644)
        return cls(key)

    @classmethod
    def load(cls, path: Path, *, passphrase: bytes | None) -> RecoveryKey:
        """Read what `create` wrote; refusals as `fltrust.keys.load`."""
        key = private_key_from_pem(read_private(path), passphrase=passphrase, where=path)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise Malformed(f"expected a recovery key in {path}, found a key of another kind")
        return cls(key)

    def open(self, sealed: bytes, *, context: bytes) -> bytes:
        """The secret; `Refused` (``recovery-key``) if it was sealed to another key, or in another context."""
        try:
            return _SUITE.decrypt(sealed, self._private_key, info=context)
        except (InvalidTag, ValueError):
            raise Refused(
                "expected a secret that was sealed to this recovery key, it does not open",
                reason="recovery-key",
            ) from None
