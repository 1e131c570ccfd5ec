"""Account keys: JSON Web Keys (RFC 7517) of the kinds that we take, and the one algorithm of each.

An algorithm is never taken on a message's word: the key's kind decides it (`AccountKey.algorithm`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fltrust.protocols.acme.problems import AcmeProblem, ProblemType
from fltrust.strictbase64 import from_base64url, to_base64url
from fltrust.strictjson import Fields

ALGORITHMS: Final = ("ES256", "RS256", "EdDSA")
_MIN_RSA, _MAX_RSA = 2048, 4096
_RSA_EXPONENT = 65537
_OPTIONAL = ("alg", "use", "kid", "key_ops")
"""Members that say nothing about which key it is (RFC 7517, section 4); read for their form only."""

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class AccountKey:
    """A public key with its JWK in canonical form (RFC 7638, section 3)."""

    public_key: PublicKey
    algorithm: str
    canonical: bytes

    @property
    def thumbprint(self) -> str:
        """RFC 7638, SHA-256, base64url: what key authorizations are made with, and accounts found by."""
        return to_base64url(sha256(self.canonical).digest())

    @property
    def jwk(self) -> dict[str, str]:
        """The public key as it is kept."""
        members: dict[str, str] = json.loads(self.canonical)
        return members

    @property
    def spki_der(self) -> bytes:
        return self.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def verify(self, signature: bytes, data: bytes) -> bool:
        """Whether the holder of this key signed `data`, with the key's own algorithm."""
        key = self.public_key
        try:
            if isinstance(key, ec.EllipticCurvePublicKey):
                if len(signature) != 64:  # r and s, of 32 octets each (RFC 7518, 3.4)
                    return False
                r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
                key.verify(encode_dss_signature(r, s), data, ec.ECDSA(SHA256()))
            elif isinstance(key, rsa.RSAPublicKey):
                key.verify(signature, data, padding.PKCS1v15(), SHA256())
            else:
                key.verify(signature, data)
        except InvalidSignature:
            return False
        return True


def read_jwk(value: object) -> AccountKey:
    """Read a JWK: P-256 (ES256), RSA of 2048 to 4096 bits (RS256) or Ed25519 (EdDSA).

    `AcmeProblem` (``badPublicKey``) for any other key, also for one that is none (a point off the curve) or
    that is private; `Malformed` for another form.
    """
    fields = Fields(value, "a JWK")
    kind = fields.text("kty", limit=8)
    for name in _OPTIONAL:
        fields.take(name)
    try:
        if kind == "EC":
            key = _ec(fields)
        elif kind == "RSA":
            key = _rsa(fields)
        elif kind == "OKP":
            key = _ed25519(fields)
        else:  # "oct" among them: a secret is never a public key
            raise _refused(f"expected a key of type EC, RSA or OKP, got {kind!r}")
    except (ValueError, UnsupportedAlgorithm):
        raise _refused("expected a public key, got numbers that are none") from None
    fields.done()  # "d" among them: whose private key is in a message is no secret any more
    return key


def key_of(public_key: object) -> AccountKey:
    """The same of a key that was read elsewhere, such as a certificate's."""
    if isinstance(public_key, ec.EllipticCurvePublicKey) and public_key.curve.name == "secp256r1":
        numbers = public_key.public_numbers()
        x, y = (to_base64url(part.to_bytes(32, "big")) for part in (numbers.x, numbers.y))
        return AccountKey(public_key, "ES256", _canonical({"crv": "P-256", "kty": "EC", "x": x, "y": y}))
    raise _refused("expected a P-256 key, got another")


def _ec(fields: Fields) -> AccountKey:
    if fields.text("crv", limit=16) != "P-256":
        raise _refused("expected the curve P-256")
    x = from_base64url(fields.text("x", limit=64), "x of the key")
    y = from_base64url(fields.text("y", limit=64), "y of the key")
    if len(x) != 32 or len(y) != 32:
        raise _refused("expected coordinates of 32 octets")
    numbers = ec.EllipticCurvePublicNumbers(
        int.from_bytes(x, "big"), int.from_bytes(y, "big"), ec.SECP256R1()
    )
    return key_of(numbers.public_key())  # raises ValueError off the curve


def _rsa(fields: Fields) -> AccountKey:
    n = from_base64url(fields.text("n", limit=1024), "n of the key")
    e = from_base64url(fields.text("e", limit=8), "e of the key")
    modulus, exponent = int.from_bytes(n, "big"), int.from_bytes(e, "big")
    if not _MIN_RSA <= modulus.bit_length() <= _MAX_RSA or n[0] == 0 or modulus % 2 == 0:
        raise _refused(f"expected an RSA key of {_MIN_RSA} to {_MAX_RSA} bits")
    if exponent != _RSA_EXPONENT or e[0] == 0:
        raise _refused(f"expected an RSA key with the exponent {_RSA_EXPONENT}")
    key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    members = {"e": to_base64url(e), "kty": "RSA", "n": to_base64url(n)}
    return AccountKey(key, "RS256", _canonical(members))


def _ed25519(fields: Fields) -> AccountKey:
    if fields.text("crv", limit=16) != "Ed25519":
        raise _refused("expected the curve Ed25519")
    x = from_base64url(fields.text("x", limit=64), "x of the key")
    if len(x) != 32:
        raise _refused("expected a key of 32 octets")
    members = {"crv": "Ed25519", "kty": "OKP", "x": to_base64url(x)}
    return AccountKey(Ed25519PublicKey.from_public_bytes(x), "EdDSA", _canonical(members))


def _canonical(members: Mapping[str, str]) -> bytes:
    return json.dumps(members, sort_keys=True, separators=(",", ":")).encode("ascii")


def _refused(message: str) -> AcmeProblem:
    return AcmeProblem(ProblemType.BAD_PUBLIC_KEY, message)
