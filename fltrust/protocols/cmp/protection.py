"""What holds a CMP message together (RFC 4210, 5.1.3): a MAC under a shared password, or a signature.

The MAC is PBM with SHA-2 alone (RFC 9481, 6.1.1); its password is a key of 256 random bits, so its rounds
add nothing, and few are enough. SHA-1, which some clients take unless told otherwise, is refused.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat import asn1

from fltrust.errors import Malformed, SignatureInvalid
from fltrust.pki.crmf import ECDSA_WITH_SHA256, RSA_WITH_SHA256, AlgorithmId
from fltrust.protocols.cmp.asn1 import Header, PbmAlgorithm, PbmParameter, ProtectedPart
from fltrust.strictbase64 import to_base64url

PBM: Final = x509.ObjectIdentifier("1.2.840.113533.7.66.13")
_HASHES: Final = {
    "2.16.840.1.101.3.4.2.1": "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
}
_MACS: Final = {
    "1.2.840.113549.2.9": "sha256",
    "1.2.840.113549.2.10": "sha384",
    "1.2.840.113549.2.11": "sha512",
}
_SHA256: Final = x509.ObjectIdentifier("2.16.840.1.101.3.4.2.1")
_HMAC_SHA256: Final = x509.ObjectIdentifier("1.2.840.113549.2.9")
MIN_ITERATIONS, MAX_ITERATIONS = 100, 10_000
_ITERATIONS: Final = 500
SALT_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Pbm:
    """The parameters of one message's MAC, within bounds."""

    salt: bytes
    owf: str
    iterations: int
    mac: str

    def tag(self, password: bytes, data: bytes) -> bytes:
        """The MAC of `data`."""
        key = hashlib.new(self.owf, password + self.salt).digest()
        for _ in range(self.iterations - 1):
            key = hashlib.new(self.owf, key).digest()
        return hmac.digest(key, data, self.mac)

    def check(self, password: bytes, data: bytes, tag: bytes) -> None:
        """Return only if `tag` is the MAC of `data`; `SignatureInvalid` otherwise."""
        if not hmac.compare_digest(self.tag(password, data), tag):
            raise SignatureInvalid("expected a message protected with its credential's key, it is not")

    def algorithm(self) -> asn1.TLV:
        """As an AlgorithmIdentifier; of those that `fresh` makes."""
        parameters = PbmParameter(
            salt=self.salt,
            owf=AlgorithmId(algorithm=_SHA256, parameters=None),
            iteration_count=self.iterations,
            mac=AlgorithmId(algorithm=_HMAC_SHA256, parameters=None),
        )
        return as_tlv(asn1.encode_der(PbmAlgorithm(oid=PBM, parameters=parameters)))

    @classmethod
    def fresh(cls, salt: bytes) -> Pbm:
        return cls(salt, "sha256", _ITERATIONS, "sha256")


@dataclass(frozen=True, slots=True)
class Signature:
    """A message is signed: ECDSA or RSA, with SHA-256."""

    is_rsa: bool


def read_protection(header: Header) -> Pbm | Signature:
    """Which protection a header claims. `Malformed` where there is none or it is another algorithm."""
    parts = header.protection_alg
    if not parts:
        raise Malformed("expected a protected message, got one without protection")
    try:
        oid = parts[0].parse(x509.ObjectIdentifier)
        if oid == PBM:
            return _pbm(parts[1].parse(PbmParameter)) if len(parts) == 2 else _no_algorithm()
    except ValueError:
        return _no_algorithm()
    if oid not in (ECDSA_WITH_SHA256, RSA_WITH_SHA256) or len(parts) > 2:
        return _no_algorithm()
    return Signature(oid == RSA_WITH_SHA256)


def password_of(key: bytes) -> str:
    """The password that a client is given for a credential's key: base64url, 43 characters."""
    return to_base64url(key)


def protected_bytes(header: asn1.TLV, body: asn1.TLV) -> bytes:
    """What protection is over."""
    return asn1.encode_der(ProtectedPart(header=header, body=body))


def as_tlv(der: bytes) -> asn1.TLV:
    found: asn1.TLV = asn1.decode_der(asn1.TLV, der)
    return found


def _pbm(found: PbmParameter) -> Pbm:
    owf = _HASHES.get(found.owf.algorithm.dotted_string)
    mac = _MACS.get(found.mac.algorithm.dotted_string)
    if owf is None or mac is None:
        return _no_algorithm()
    if not MIN_ITERATIONS <= found.iteration_count <= MAX_ITERATIONS or not 8 <= len(found.salt) <= 64:
        raise Malformed(
            f"expected a MAC with {MIN_ITERATIONS} to {MAX_ITERATIONS} rounds and a salt of 8 to 64 bytes"
        )
    return Pbm(found.salt, owf, found.iteration_count, mac)


def _no_algorithm() -> Pbm:
    raise Malformed(
        "expected protection by a MAC with SHA-256, or by a signature with SHA-256; got another algorithm",
        reason="bad-algorithm",
        hint="openssl cmp: -digest sha256 -mac hmacWithSHA256",
    )
