"""The certificate of whoever signed an artifact: its path at a time, its purpose, and the name in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from fltrust.errors import CertificateRefused, EvidenceInvalid, Malformed, UntrustedSigner
from fltrust.identity import SpiffeId
from fltrust.keys.verify import is_p256
from fltrust.pki.codesigning import ISSUER_OID, ISSUER_V2_OID, check_signing_profile
from fltrust.pki.issuing import domain_of_ca
from fltrust.pki.leaf import PARSE_ERRORS, read_leaf

OUR_ISSUERS = "spiffe://"
_MAX_DEPTH = 4
# The Web PKI's rules; extended key usages are judged here, since Sigstore's CA certificates state them.
_CA_RULES = ExtensionPolicy.webpki_defaults_ca().may_be_present(
    x509.ExtendedKeyUsage, Criticality.AGNOSTIC, None
)
_LEAF_RULES = ExtensionPolicy.webpki_defaults_ee().may_be_present(
    x509.ExtendedKeyUsage, Criticality.AGNOSTIC, None
)


@dataclass(frozen=True, slots=True)
class SignerCertificate:
    """A certificate as read. Its names are claims until `require_path`."""

    certificate: x509.Certificate
    public_key: EllipticCurvePublicKey
    name: str
    issuer: str | None

    @property
    def is_ours(self) -> bool:
        """Whether it claims to be of a fltrust trust domain, whose profile then binds it."""
        return self.issuer is not None and self.issuer.startswith(OUR_ISSUERS)

    def is_valid_at(self, at: datetime) -> bool:
        return self.certificate.not_valid_before_utc <= at <= self.certificate.not_valid_after_utc


def read_signer(der: bytes) -> SignerCertificate:
    """Read a code-signing certificate, ours or Sigstore's; `EvidenceInvalid` (``certificate-profile``).

    A P-256 key; digitalSignature and codeSigning; one name, a URI or an e-mail address; an issuer of
    the identity as Fulcio states it (1.3.6.1.4.1.57264.1.8, or .1), if there is one.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        public_key = certificate.public_key()
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        extended = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        names = list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        issuer = _issuer_of(certificate)
    except (*PARSE_ERRORS, x509.ExtensionNotFound) as error:
        raise _wrong(f"found {type(error).__name__} on reading it") from None
    if not is_p256(public_key):
        raise _wrong("its key is not P-256")
    if not usage.digital_signature or ExtendedKeyUsageOID.CODE_SIGNING not in extended:
        raise _wrong("it is for another purpose")
    if len(names) != 1 or not isinstance(names[0], x509.UniformResourceIdentifier | x509.RFC822Name):
        raise _wrong("it has other names than one URI or e-mail address")
    found = SignerCertificate(certificate, public_key, names[0].value, issuer)
    if found.is_ours:
        _require_profile(found)
    return found


def require_path(
    signer: SignerCertificate,
    *,
    anchor: x509.Certificate,
    intermediates: Sequence[x509.Certificate],
    at: datetime,
) -> x509.Certificate:
    """Return the certificate that issued the signer's, or raise `UntrustedSigner` (``certificate-path``):
    no path to `anchor` at this time (RFC 5280, section 6), or for a name of ours to the anchor of another
    trust domain. A trust file may list several: each vouches for its own names alone."""
    _require_own_anchor(signer, anchor)
    try:
        verifier = (
            PolicyBuilder()
            .store(Store([anchor]))
            .time(at)
            .max_chain_depth(_MAX_DEPTH)
            .extension_policies(ca_policy=_CA_RULES, ee_policy=_LEAF_RULES)
            .build_client_verifier()
        )
        return verifier.verify(signer.certificate, list(intermediates)).chain[1]
    except (VerificationError, IndexError, *PARSE_ERRORS) as error:
        why = str(error).partition(" (encountered")[0][:160]
        raise UntrustedSigner(
            f"expected a certificate by an authority of the trust file, got one of {signer.name[:200]} "
            f"without a path to it: {why}",
            reason="certificate-path",
            hint="is this the trust file of the federation that the model comes from?",
        ) from None


def _require_own_anchor(signer: SignerCertificate, anchor: x509.Certificate) -> None:
    if not signer.is_ours:
        return
    domain = SpiffeId.parse(signer.name).domain
    try:
        is_own = domain_of_ca(anchor) == domain
    except Malformed:
        is_own = False
    if not is_own:
        raise UntrustedSigner(
            f"expected a certificate of {signer.name} by the authority of {domain}, got one by another",
            reason="certificate-path",
            hint="is this the trust file of the federation that the model comes from?",
        )


def _require_profile(signer: SignerCertificate) -> None:
    try:
        leaf = read_leaf(signer.certificate)
        check_signing_profile(leaf)
    except CertificateRefused as error:
        raise _wrong(error.message) from None


def _issuer_of(certificate: x509.Certificate) -> str | None:
    raw = {
        extension.oid: extension.value.value
        for extension in certificate.extensions
        if isinstance(extension.value, x509.UnrecognizedExtension)
    }
    if ISSUER_V2_OID in raw:
        return asn1.decode_der(str, raw[ISSUER_V2_OID])
    return raw[ISSUER_OID].decode() if ISSUER_OID in raw else None


def _wrong(why: str) -> EvidenceInvalid:
    return EvidenceInvalid(
        f"expected a code-signing certificate with one name and a P-256 key: {why}",
        reason="certificate-profile",
    )
