"""Enrollment on the wire: requests, certificates, bundles, tokens and participants."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.enrollment.jwt import MAX_TOKEN as MAX_OIDC
from fltrust.enrollment.lapsed import LapsedEvidence
from fltrust.enrollment.oidc import OidcEvidence
from fltrust.enrollment.token import SECRET_BYTES
from fltrust.enrollment.tpm import TpmEvidence
from fltrust.enrollment.types import (
    MAX_NOTE,
    Enrollment,
    EnrollRequest,
    Evidence,
    Issued,
    JoinTokenEvidence,
    ManualEvidence,
    TokenRecord,
    TokenStatus,
)
from fltrust.enrollment.x509_evidence import MAX_CHAIN as MAX_EVIDENCE_CHAIN
from fltrust.enrollment.x509_evidence import MAX_PROOF as MAX_EVIDENCE_PROOF
from fltrust.enrollment.x509_evidence import X509Evidence
from fltrust.errors import Malformed
from fltrust.identity import Name, Role, Serial, SpiffeId, TrustDomain
from fltrust.pki.bundle import MAX_ROOTS, make_bundle
from fltrust.pki.csr import MAX_CSR
from fltrust.pki.types import TrustBundle
from fltrust.pki.verify import MAX_CERTIFICATE, MAX_CHAIN
from fltrust.wire import tpm as tpm_codec
from fltrust.wire.pb import enrollment_pb2 as pb
from fltrust.wire.values import (
    at_most,
    bounded,
    bounded_or_none,
    missing,
    present,
    spiffe_or_none,
    text_of,
    text_within,
    time_from_field,
    time_from_optional,
    time_to_pb,
    word,
)

MAX_NODE_KEY = 512
"""Bytes of SubjectPublicKeyInfo of a node key."""
MAX_PROOF = 256
MAX_DNS_NAMES = 16
MAX_TOKEN_ID = 64
MAX_TTL = timedelta(days=366)
_MAX_WORD = 64


def bundle_to_pb(bundle: TrustBundle) -> pb.TrustBundle:
    return pb.TrustBundle(
        trust_domain=bundle.domain,
        roots=[root.public_bytes(Encoding.DER) for root in bundle.roots],
        sequence=bundle.sequence,
    )


def bundle_from_pb(message: pb.TrustBundle) -> TrustBundle:
    """Read a bundle of 1 to 16 CA certificates. Whether to trust it is for the caller to know."""
    at_most(message.roots, MAX_ROOTS, what="roots in a trust bundle")
    roots = [_certificate(der) for der in message.roots]
    return make_bundle(TrustDomain(message.trust_domain), roots, sequence=message.sequence)


def enroll_request_to_pb(request: EnrollRequest) -> pb.EnrollRequest:
    message = pb.EnrollRequest(
        csr=request.csr_der,
        node_key=request.node_key or b"",
        node_key_proof=request.node_key_proof or b"",
    )
    match request.evidence:
        case JoinTokenEvidence(secret):
            message.join_token.secret = secret
        case OidcEvidence(token):
            message.oidc.token = token
        case X509Evidence(chain, proof):
            message.x509.chain.extend(chain)
            message.x509.proof = proof
        case ManualEvidence(note):
            message.manual.note = note
        case LapsedEvidence(chain, proof):
            message.lapsed.chain.extend(chain)
            message.lapsed.proof = proof
        case TpmEvidence():
            tpm_codec.evidence_to_pb(request.evidence, message.tpm)
        case _:
            raise missing("evidence of a kind that crosses the wire")
    return message


def enroll_request_from_pb(message: pb.EnrollRequest) -> EnrollRequest:
    """Read a request; evidence of a kind that is not known here is refused, never ignored."""
    return EnrollRequest(
        evidence=_evidence(message),
        csr_der=bounded(message.csr, limit=MAX_CSR, what="a certificate request"),
        node_key=bounded_or_none(message.node_key, limit=MAX_NODE_KEY, what="a node key"),
        node_key_proof=bounded_or_none(message.node_key_proof, limit=MAX_PROOF, what="a node key's proof"),
    )


def _evidence(message: pb.EnrollRequest) -> Evidence:
    match message.WhichOneof("evidence"):
        case "join_token":
            secret = message.join_token.secret
            if len(secret) != SECRET_BYTES:
                raise Malformed(f"expected a token's secret of {SECRET_BYTES} bytes, got {len(secret)}")
            return JoinTokenEvidence(secret)
        case "oidc":
            if not message.oidc.token:
                raise Malformed("expected a token of an OpenID Connect issuer, got nothing")
            return OidcEvidence(text_within(message.oidc.token, limit=MAX_OIDC, what="a token"))
        case "x509":
            at_most(message.x509.chain, MAX_EVIDENCE_CHAIN, what="certificates in a chain")
            chain = tuple(
                bounded(der, limit=MAX_CERTIFICATE, what="a certificate") for der in message.x509.chain
            )
            proof = bounded(message.x509.proof, limit=MAX_EVIDENCE_PROOF, what="a proof of possession")
            return X509Evidence(chain, proof)
        case "lapsed":
            at_most(message.lapsed.chain, MAX_CHAIN, what="certificates in a chain")
            lapsed = tuple(
                bounded(der, limit=MAX_CERTIFICATE, what="a certificate") for der in message.lapsed.chain
            )
            return LapsedEvidence(
                lapsed, bounded(message.lapsed.proof, limit=MAX_PROOF, what="a proof of possession")
            )
        case "tpm":
            return tpm_codec.evidence_from_pb(message.tpm)
        case "manual":
            return ManualEvidence(text_within(message.manual.note, limit=MAX_NOTE, what="a note"))
        case _:
            raise missing("evidence in the request to enroll")


def renew_request_from_pb(message: pb.RenewRequest) -> bytes:
    """The certificate request, in DER."""
    return bounded(message.csr, limit=MAX_CSR, what="a certificate request")


def certify_workload_request_from_pb(message: pb.CertifyWorkloadRequest) -> bytes:
    """The certificate request, in DER."""
    return bounded(message.csr, limit=MAX_CSR, what="a certificate request")


def issued_to_pb(issued: Issued) -> pb.IssuedCertificate:
    return pb.IssuedCertificate(
        spiffe_id=str(issued.spiffe_id), chain=issued.chain_der, bundle=bundle_to_pb(issued.bundle)
    )


def issued_from_pb(message: pb.IssuedCertificate) -> Issued:
    """Read what was issued; the holder verifies the chain against roots it already trusts."""
    present(message, "bundle")
    at_most(message.chain, MAX_CHAIN, what="certificates in a chain")
    if not message.chain:
        raise Malformed("expected a chain of certificates, got none")
    return Issued(
        spiffe_id=SpiffeId.parse(message.spiffe_id),
        chain_der=tuple(bounded(der, limit=MAX_CERTIFICATE, what="a certificate") for der in message.chain),
        bundle=bundle_from_pb(message.bundle),
    )


def create_token_request_to_pb(
    role: Role, name: Name, *, ttl: timedelta, replace: bool, dns_names: Sequence[str] = ()
) -> pb.CreateTokenRequest:
    return pb.CreateTokenRequest(
        role=role,
        name=name,
        ttl_seconds=seconds_of(ttl, what="a token's life"),
        replace=replace,
        dns_names=dns_names,
    )


def create_token_request_from_pb(
    message: pb.CreateTokenRequest,
) -> tuple[Role, Name, timedelta, bool, tuple[str, ...]]:
    """Role, name, time to live, whether an enrolled name may be taken over, and DNS names."""
    ttl = timedelta(seconds=message.ttl_seconds)
    seconds_of(ttl, what="a token's life")
    names = dns_names_from_pb(message.dns_names)
    return word(Role, message.role, what="a role"), Name(message.name), ttl, message.replace, names


def dns_names_from_pb(names: Sequence[str]) -> tuple[str, ...]:
    """Read DNS names within bounds; whether a role may have them is for the coordinator to say."""
    at_most(names, MAX_DNS_NAMES, what="DNS names")
    return tuple(text_within(name, limit=253, what="a DNS name") for name in names)


def cancel_token_request_from_pb(message: pb.CancelTokenRequest) -> str:
    """The id of the token."""
    if not message.token_id:
        raise Malformed("expected a token id, got nothing")
    return text_within(message.token_id, limit=MAX_TOKEN_ID, what="a token id")


def token_record_to_pb(record: TokenRecord) -> pb.Token:
    return pb.Token(
        token_id=record.token_id,
        role=record.role,
        name=record.name,
        created_at=time_to_pb(record.created_at),
        expires_at=time_to_pb(record.expires_at),
        created_by=text_of(record.created_by),
        replace=record.replace,
        status=record.status,
        dns_names=record.dns_names,
    )


def token_record_from_pb(message: pb.Token) -> TokenRecord:
    return TokenRecord(
        token_id=text_within(message.token_id, limit=MAX_TOKEN_ID, what="a token id"),
        role=word(Role, message.role, what="a role"),
        name=Name(message.name),
        created_at=time_from_field(message, "created_at"),
        expires_at=time_from_field(message, "expires_at"),
        created_by=spiffe_or_none(message.created_by),
        replace=message.replace,
        status=word(TokenStatus, message.status, what="a token's status"),
        dns_names=dns_names_from_pb(message.dns_names),
    )


def participant_to_pb(record: Enrollment) -> pb.Participant:
    message = pb.Participant(
        spiffe_id=str(record.spiffe_id),
        enrolled_at=time_to_pb(record.enrolled_at),
        enrolled_by=text_of(record.enrolled_by),
        evidence=record.evidence,
        node_key=record.node_key or b"",
        standing=record.standing,
        since_epoch=record.since_epoch,
        certificate_serial=record.certificate_serial or "",
        dns_names=record.dns_names,
    )
    if record.certificate_not_after is not None:
        message.certificate_not_after.CopyFrom(time_to_pb(record.certificate_not_after))
    return message


def participant_from_pb(message: pb.Participant) -> Enrollment:
    serial = message.certificate_serial
    return Enrollment(
        spiffe_id=SpiffeId.parse(message.spiffe_id),
        enrolled_at=time_from_field(message, "enrolled_at"),
        enrolled_by=spiffe_or_none(message.enrolled_by),
        evidence=text_within(message.evidence, limit=_MAX_WORD, what="a kind of evidence"),
        node_key=bounded_or_none(message.node_key, limit=MAX_NODE_KEY, what="a node key"),
        standing=text_within(message.standing, limit=_MAX_WORD, what="a standing"),
        since_epoch=message.since_epoch,
        certificate_serial=Serial.parse(serial).hex if serial else None,
        certificate_not_after=time_from_optional(message, "certificate_not_after"),
        dns_names=dns_names_from_pb(message.dns_names),
    )


def get_participant_request_from_pb(message: pb.GetParticipantRequest) -> SpiffeId:
    return SpiffeId.parse(message.spiffe_id)


def seconds_of(life: timedelta, *, what: str) -> int:
    if not timedelta(seconds=1) <= life <= MAX_TTL:
        raise Malformed(f"expected {what} between 1 second and {MAX_TTL.days} days, got {life}")
    return int(life.total_seconds())


def _certificate(der: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(bounded(der, limit=MAX_CERTIFICATE, what="a certificate"))
    except (ValueError, TypeError) as error:
        raise Malformed(
            f"expected a certificate in DER, found {type(error).__name__} on reading it"
        ) from None
