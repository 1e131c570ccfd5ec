"""Signatures by keys that are not ours: which are strong enough to count, and whether they hold."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm

from fltrust.pki.leaf import PARSE_ERRORS
from fltrust.pki.path.budget import Budget
from fltrust.pki.path.evidence import Crl
from fltrust.pki.path.facts import Facts

_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_HASHES = (SHA256, SHA384, SHA512)
_MIN_RSA, _MAX_RSA = 2048, 8192
_MAX_SIGNATURE = 8 * 1024
_ERRORS = (InvalidSignature, UnsupportedAlgorithm, *PARSE_ERRORS)


def is_strong(key: object) -> bool:
    """Whether a key counts: P-256, P-384, P-521, RSA of 2048 to 8192, Ed25519, ML-DSA-65."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return isinstance(key.curve, _CURVES)
    if isinstance(key, rsa.RSAPublicKey):
        return _MIN_RSA <= key.key_size <= _MAX_RSA
    return isinstance(key, ed25519.Ed25519PublicKey | mldsa.MLDSA65PublicKey)


def is_signed_by(
    key: object, signature: bytes, data: bytes, *, algorithm: HashAlgorithm | None, parameters: object = None
) -> bool:
    """Whether `signature` is `key`'s over `data`, by an algorithm that counts; never raises.

    `algorithm` is the hash (None for Ed25519 and ML-DSA, which have their own); `parameters` say for RSA
    whether it is PSS, otherwise it is PKCS #1 v1.5. SHA-2 of 256, 384 or 512 bits, in PSS's MGF1 the same.
    """
    if not is_strong(key) or len(signature) > _MAX_SIGNATURE:
        return False
    try:
        if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(algorithm, _HASHES):
            key.verify(signature, data, ec.ECDSA(algorithm))
        elif isinstance(key, rsa.RSAPublicKey) and isinstance(algorithm, _HASHES):
            pss = parameters if isinstance(parameters, padding.PSS) else None
            if pss is not None and pss.mgf._algorithm.name != algorithm.name:
                return False
            key.verify(signature, data, pss or padding.PKCS1v15(), algorithm)
        elif isinstance(key, ed25519.Ed25519PublicKey | mldsa.MLDSA65PublicKey) and algorithm is None:
            key.verify(signature, data)
        else:
            return False
    except _ERRORS:
        return False
    return True


def is_issued_by(certificate: Facts, issuer: Facts, *, budget: Budget) -> bool:
    """Whether the issuer's key signed the certificate, which names one algorithm within and without."""
    budget.signature()
    subject = certificate.certificate
    try:
        key = issuer.certificate.public_key()
        return _says_one_algorithm(certificate) and is_signed_by(
            key,
            subject.signature,
            subject.tbs_certificate_bytes,
            algorithm=subject.signature_hash_algorithm,
            parameters=subject.signature_algorithm_parameters,
        )
    except _ERRORS:
        return False


def has_signed_crl(crl: Crl, facts: Facts) -> bool:
    """Whether a certificate's key signed the CRL, with an algorithm that counts; never raises."""
    try:
        key = facts.certificate.public_key()
        algorithm = crl.crl.signature_hash_algorithm
        return (
            is_strong(key)
            and (algorithm is None or isinstance(algorithm, _HASHES))
            and crl.crl.is_signature_valid(key)  # type: ignore[arg-type]  # any kind may be asked about
        )
    except _ERRORS:
        return False


def _says_one_algorithm(facts: Facts) -> bool:
    """RFC 5280, 4.1.1.2: what stands beside the signature is what was signed. The DER was parsed before."""
    tbs = facts.certificate.tbs_certificate_bytes
    start, _ = _content(facts.der, 0)
    outer = facts.der[start + len(tbs) :]
    outer = outer[: _content(outer, 0)[1]]
    at, _ = _content(tbs, 0)
    if tbs[at] == 0xA0:  # version
        at = _content(tbs, at)[1]
    at = _content(tbs, at)[1]  # serial
    return tbs[at : at + len(outer)] == outer


def _content(der: bytes, at: int) -> tuple[int, int]:
    """Where the content of the element at `at` begins and ends."""
    first = der[at + 1]
    if first < 0x80:
        return at + 2, at + 2 + first
    start = at + 2 + (first & 0x7F)
    return start, start + int.from_bytes(der[at + 2 : start], "big")
