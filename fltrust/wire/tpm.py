"""Evidence of TPMs on the wire: bounds are held here, structures are `fltrust.enrollment.tpm`'s to read."""

from __future__ import annotations

from fltrust.enrollment.ek import MAX_EK_CERTIFICATE, MAX_EK_CHAIN
from fltrust.enrollment.tpm import (
    MAX_STRUCTURE,
    MAX_TICKET,
    SECRET_BYTES,
    TpmChallenge,
    TpmEvidence,
    TpmIntroduction,
)
from fltrust.wire.pb import enrollment_pb2 as pb
from fltrust.wire.values import at_most, bounded

_WHAT = "a TPM's structure"


def introduction_to_pb(introduction: TpmIntroduction) -> pb.ChallengeTpmRequest:
    return pb.ChallengeTpmRequest(chain=introduction.chain, attestation_key=introduction.attestation_key)


def introduction_from_pb(message: pb.ChallengeTpmRequest) -> TpmIntroduction:
    at_most(message.chain, MAX_EK_CHAIN, what="certificates of a TPM's maker")
    return TpmIntroduction(
        tuple(bounded(der, limit=MAX_EK_CERTIFICATE, what="a certificate") for der in message.chain),
        bounded(message.attestation_key, limit=MAX_STRUCTURE, what=_WHAT),
    )


def challenge_to_pb(challenge: TpmChallenge) -> pb.ChallengeTpmResponse:
    return pb.ChallengeTpmResponse(
        credential=challenge.credential, secret=challenge.secret, ticket=challenge.ticket
    )


def challenge_from_pb(message: pb.ChallengeTpmResponse) -> TpmChallenge:
    return TpmChallenge(
        bounded(message.credential, limit=MAX_STRUCTURE, what=_WHAT),
        bounded(message.secret, limit=MAX_STRUCTURE, what=_WHAT),
        bounded(message.ticket, limit=MAX_TICKET, what="a ticket"),
    )


def evidence_to_pb(evidence: TpmEvidence, message: pb.TpmEvidence) -> None:
    """Write the evidence into its field of a request."""
    message.ticket = evidence.ticket
    message.secret = evidence.secret
    message.attestation_key = evidence.attestation_key
    message.certified_key = evidence.certified_key
    message.attestation = evidence.attestation
    message.signature = evidence.signature


def evidence_from_pb(message: pb.TpmEvidence) -> TpmEvidence:
    return TpmEvidence(
        bounded(message.ticket, limit=MAX_TICKET, what="a ticket"),
        bounded(message.secret, limit=SECRET_BYTES, what="a TPM's secret"),
        bounded(message.attestation_key, limit=MAX_STRUCTURE, what=_WHAT),
        bounded(message.certified_key, limit=MAX_STRUCTURE, what=_WHAT),
        bounded(message.attestation, limit=MAX_STRUCTURE, what=_WHAT),
        bounded(message.signature, limit=MAX_STRUCTURE, what=_WHAT),
    )
