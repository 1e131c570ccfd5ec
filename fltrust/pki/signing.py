"""The bridge from our `Signer` port to `cryptography`'s builders.

The builders ask a private key for its public half and for signatures, nothing else. So any `Signer`
(a file, an HSM, a cloud KMS) can issue, and none has to give its key away.
"""

from __future__ import annotations

from typing import NoReturn

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256

from fltrust.keys.signer import Signer


class SignerKey(ec.EllipticCurvePrivateKey):
    """A P-256 private key that can sign with SHA-256 through a `Signer`, and can do nothing else."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._signer.public_key

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._signer.public_key.curve

    @property
    def key_size(self) -> int:
        return self.curve.key_size

    def sign(self, data: object, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        algorithm = signature_algorithm.algorithm
        if isinstance(algorithm, Prehashed) or not isinstance(algorithm, SHA256):
            raise UnsupportedAlgorithm("expected ECDSA with SHA-256")
        return self._signer.sign(bytes(memoryview(data)))  # type: ignore[arg-type]  # a buffer: 3.11 has no word for it

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> bytes:
        _refuse(algorithm, peer_public_key)

    def private_numbers(self) -> ec.EllipticCurvePrivateNumbers:
        _refuse()

    def private_bytes(self, encoding: object, format: object, encryption_algorithm: object) -> bytes:  # noqa: A002 - the base's name
        _refuse(encoding, format, encryption_algorithm)

    def __copy__(self) -> SignerKey:
        return self

    def __deepcopy__(self, memo: object) -> SignerKey:
        return self


def _refuse(*_asked: object) -> NoReturn:
    raise UnsupportedAlgorithm("the key behind a Signer does not leave it")
