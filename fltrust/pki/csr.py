"""Certificate requests: a key and the proof that its holder is asking. Nothing else in one is read."""

from __future__ import annotations

from collections.abc import Iterable

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key

from fltrust.errors import CertificateRefused, Malformed, Oversized, Refusal, SignatureInvalid
from fltrust.identity import SpiffeId
from fltrust.keys.mldsa import MLDSA65, MldsaSigner, verify_mldsa
from fltrust.keys.signer import Signer
from fltrust.keys.verify import is_p256, verify_with
from fltrust.pki import crmf
from fltrust.pki.leaf import PARSE_ERRORS
from fltrust.pki.leaf_keys import LeafKey, is_leaf_key, is_rsa
from fltrust.pki.signing import SignerKey

MAX_CSR = 16 * 1024


def parse_csr(der: bytes) -> ec.EllipticCurvePublicKey:
    """Return the P-256 key that signed this PKCS#10 request (RFC 2986).

    Names, extensions and attributes in it are never looked at: a certificate's names come from the
    enrollment record. `Oversized` above 16 KiB, before parsing; `Malformed` for what is not DER of a
    P-256 request; `SignatureInvalid` when the holder of the key did not sign it.
    """
    _bound(der)
    key = _parse_pkcs10(der)
    if not is_p256(key):
        raise _not_p256()
    return key


def parse_request(der: bytes) -> LeafKey:
    """As `parse_csr`, of a request in any form that an enrollment protocol carries: PKCS#10, or one CRMF
    CertReqMsg (RFC 4211) with a signature as proof of possession; and of an RSA key, too, which the profile
    of the role that the request earns allows or refuses.

    The two forms cannot be taken for each other: what follows the part that is signed is a SEQUENCE in the
    one and [1] in the other, and neither's signed part parses as the other's.
    """
    _bound(der)
    try:
        message = asn1.decode_der(crmf.CertReqMsg, der)
    except ValueError:
        return _parse_pkcs10(der)
    return _check_crmf(message)


def create_csr(signer: Signer) -> bytes:
    """Make the request that `parse_csr` takes, in DER: the key, its proof, an empty name."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(SignerKey(signer), SHA256()).public_bytes(Encoding.DER)


def create_mldsa_csr(signer: MldsaSigner, who: SpiffeId) -> bytes:
    """Make the request that `parse_mldsa_csr` takes, in DER: the key, its proof, and for whom it is."""
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(who))])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    request = builder.add_extension(names, critical=True).sign(signer.private_key, None)
    return request.public_bytes(Encoding.DER)


def parse_mldsa_csr(der: bytes, *, expect: SpiffeId) -> MLDSA65PublicKey:
    """Return the ML-DSA-65 key that signed this PKCS#10 request (RFC 2986) for `expect`.

    The name earns nothing by itself: somebody else's first certificate vouches for it. It is there so that
    the holder of this key says whose it is, and nobody can have another's key certified for themselves.
    `Oversized`, `Malformed` and `SignatureInvalid` as `parse_csr`; `CertificateRefused` for another name.
    """
    _bound(der)
    try:
        request = x509.load_der_x509_csr(der)
        key, signed, signature = request.public_key(), request.tbs_certrequest_bytes, request.signature
        names = [name for extension in request.extensions for name in _names_in(extension)]
    except PARSE_ERRORS as error:
        raise Malformed(
            f"expected a certificate request in DER (PKCS#10), found {type(error).__name__} on reading it"
        ) from None
    if not isinstance(key, MLDSA65PublicKey) or request.signature_algorithm_oid != MLDSA65:
        raise Malformed("expected a certificate request of an ML-DSA-65 key, got another kind")
    try:
        verify_mldsa(key, signature, signed)
    except SignatureInvalid:
        raise SignatureInvalid("expected a certificate request signed by its own key, it is not") from None
    if names != [x509.UniformResourceIdentifier(str(expect))]:
        raise CertificateRefused(
            f"expected a certificate request for {expect}, got one for another",
            reason=Refusal.UNKNOWN_IDENTITY,
        )
    return key


def _names_in(extension: x509.Extension[x509.ExtensionType]) -> Iterable[x509.GeneralName]:
    return extension.value if isinstance(extension.value, x509.SubjectAlternativeName) else ()


def _bound(der: bytes) -> None:
    if len(der) > MAX_CSR:
        raise Oversized(f"expected a certificate request of at most {MAX_CSR} bytes, got {len(der)}")


def _parse_pkcs10(der: bytes) -> LeafKey:
    try:
        request = x509.load_der_x509_csr(der)
        public_key = request.public_key()
        algorithm = request.signature_hash_algorithm
    except PARSE_ERRORS as error:
        raise Malformed(
            f"expected a certificate request in DER (PKCS#10), found {type(error).__name__} on reading it"
        ) from None
    if not is_leaf_key(public_key) or not isinstance(algorithm, SHA256):
        raise _not_p256()
    try:
        proven = request.is_signature_valid
    except (*PARSE_ERRORS, InvalidSignature):
        proven = False
    # The signature's BIT STRING is a whole number of octets: nothing outside what is signed may vary.
    if not proven or not der.endswith(b"\x00" + request.signature):
        raise SignatureInvalid("expected a certificate request signed by its own key, it is not")
    return public_key


def _check_crmf(message: crmf.CertReqMsg) -> LeafKey:
    try:
        request = message.request.parse(crmf.CertRequest)
        spki = request.template.public_key
        public_key = None if spki is None else load_der_public_key(asn1.encode_der(spki))
    except PARSE_ERRORS as error:
        raise Malformed(
            f"expected a certificate request in CRMF, found {type(error).__name__} on reading it"
        ) from None
    if not is_leaf_key(public_key):
        raise _not_p256()
    expected = crmf.RSA_WITH_SHA256 if is_rsa(public_key) else crmf.ECDSA_WITH_SHA256
    if message.proof.algorithm.algorithm != expected or message.proof.signature.padding_bits():
        raise _not_p256()
    try:
        verify_with(public_key, message.proof.signature.as_bytes(), asn1.encode_der(message.request))
    except SignatureInvalid:
        raise SignatureInvalid("expected a certificate request signed by its own key, it is not") from None
    return public_key


def _not_p256() -> Malformed:
    return Malformed(
        "expected a certificate request with a P-256 key, signed by ECDSA with SHA-256",
        hint="openssl ecparam -name prime256v1",
    )
