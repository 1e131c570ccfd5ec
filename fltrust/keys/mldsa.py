"""ML-DSA-65 keys in files (FIPS 204): what gives a second signature beside the classical one. Experimental.

The same care as for other keys (`fltrust.keys.file`): PKCS#8 PEM, encrypted where a passphrase is given, open
to nobody else. Signatures are pure ML-DSA with an empty context string: what a stranger's verifier expects.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey
from cryptography.x509 import ObjectIdentifier

from fltrust.errors import Malformed, SignatureInvalid
from fltrust.files import write_durably
from fltrust.identity import KeyId
from fltrust.keys.file import encryption_for, private_key_from_pem, read_private

SIGNATURE_BYTES = 3_309
MLDSA65 = ObjectIdentifier("2.16.840.1.101.3.4.3.18")
"""id-ml-dsa-65 (RFC 9881), for keys and signatures."""


class MldsaSigner:
    """Signs with one ML-DSA-65 key in this process; safe to call from many threads."""

    __slots__ = ("_private_key", "key_id", "public_key")

    def __init__(self, private_key: MLDSA65PrivateKey) -> None:
        self._private_key = private_key
        self.public_key: MLDSA65PublicKey = private_key.public_key()
        self.key_id = key_id_of(self.public_key)

    @property
    def private_key(self) -> MLDSA65PrivateKey:
        """For `cryptography`'s certificate builders, which take the key itself."""
        return self._private_key

    def sign(self, data: bytes) -> bytes:
        """Pure ML-DSA-65 over `data`: 3,309 bytes, others each time."""
        return self._private_key.sign(data)

    def to_pem(self, passphrase: bytes | None) -> bytes:
        """Give the private key as PKCS#8 PEM; without a passphrase that is the secret itself."""
        return self._private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption_for(passphrase)
        )

    def __repr__(self) -> str:
        return f"MldsaSigner(key_id={self.key_id!s})"


def generate_mldsa() -> MldsaSigner:
    """Make a fresh ML-DSA-65 key from the operating system's entropy."""
    return MldsaSigner(MLDSA65PrivateKey.generate())


def save_mldsa(signer: MldsaSigner, path: Path, *, passphrase: bytes | None) -> None:
    """Write the key durably to `path` (0600), encrypted if a passphrase is given; replaces a file whole."""
    write_durably(path, signer.to_pem(passphrase))


def load_mldsa(path: Path, *, passphrase: bytes | None) -> MldsaSigner:
    """Read a key that `save_mldsa` (or ``openssl genpkey`` of 3.5) wrote; refusals as `fltrust.keys.load`."""
    return mldsa_from_pem(read_private(path), passphrase=passphrase, where=path)


def mldsa_from_pem(pem: bytes, *, passphrase: bytes | None, where: Path) -> MldsaSigner:
    """Read the first private key in `pem`, which came from `where`; refusals as `fltrust.keys.load`."""
    key = private_key_from_pem(pem, passphrase=passphrase, where=where)
    if not isinstance(key, MLDSA65PrivateKey):
        raise Malformed(f"expected an ML-DSA-65 private key in {where}, found a key of another kind")
    return MldsaSigner(key)


def verify_mldsa(public_key: object, signature: bytes, data: bytes) -> None:
    """Return only if `signature` is `public_key`'s over `data`; raise `SignatureInvalid` otherwise.

    A key that is not ML-DSA-65 and a signature of another length are refused the same way.
    """
    if not isinstance(public_key, MLDSA65PublicKey) or len(signature) != SIGNATURE_BYTES:
        raise SignatureInvalid("expected an ML-DSA-65 signature, got something else")
    try:
        public_key.verify(signature, data)
    except InvalidSignature:
        raise SignatureInvalid("expected an ML-DSA-65 signature by the stated key over this data") from None


def key_id_of(public_key: MLDSA65PublicKey) -> KeyId:
    spki = public_key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return KeyId.of_spki(spki)
