"""Certificate requests: a key and the proof that its holder is asking. Nothing else in one is read."""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.errors import Malformed, Oversized, SignatureInvalid
from fltrust.keys.signer import Signer
from fltrust.keys.verify import is_p256
from fltrust.pki.leaf import PARSE_ERRORS
from fltrust.pki.signing import SignerKey

MAX_CSR = 16 * 1024


def parse_csr(der: bytes) -> ec.EllipticCurvePublicKey:
    """Return the P-256 key that signed this PKCS#10 request (RFC 2986).

    Names, extensions and attributes in it are never looked at: a certificate's names come from the
    enrollment record. `Oversized` above 16 KiB, before parsing; `Malformed` for what is not DER of a
    P-256 request; `SignatureInvalid` when the holder of the key did not sign it.
    """
    if len(der) > MAX_CSR:
        raise Oversized(f"expected a certificate request of at most {MAX_CSR} bytes, got {len(der)}")
    try:
        request = x509.load_der_x509_csr(der)
        public_key = request.public_key()
        algorithm = request.signature_hash_algorithm
    except PARSE_ERRORS as error:
        raise Malformed(
            f"expected a certificate request in DER (PKCS#10), found {type(error).__name__} on reading it"
        ) from None
    if not is_p256(public_key) or not isinstance(algorithm, SHA256):
        raise Malformed(
            "expected a certificate request with a P-256 key, signed by ECDSA with SHA-256",
            hint="openssl ecparam -name prime256v1",
        )
    try:
        proven = request.is_signature_valid
    except (*PARSE_ERRORS, InvalidSignature):
        proven = False
    if not proven:
        raise SignatureInvalid("expected a certificate request signed by its own key, it is not")
    return public_key


def create_csr(signer: Signer) -> bytes:
    """Make the request that `parse_csr` takes, in DER: the key, its proof, an empty name."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(SignerKey(signer), SHA256()).public_bytes(Encoding.DER)
