"""What each method does: a request message in, a response message out, through one caller's session."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from google.protobuf.message import Message

from fltrust.coordinator import registrar_methods as registrar
from fltrust.coordinator.authority import Authority
from fltrust.coordinator.lanes import Urgency
from fltrust.coordinator.session import Session
from fltrust.enrollment.token import encode_token
from fltrust.identity import Role, RunId
from fltrust.pki.csr import MAX_CSR
from fltrust.revocation.events import TrustEvent
from fltrust.wire import artifacts as artifacts_codec
from fltrust.wire import credentials as credentials_codec
from fltrust.wire import enrollment as enrollment_codec
from fltrust.wire import federation as federation_codec
from fltrust.wire import methods
from fltrust.wire import requests as requests_codec
from fltrust.wire import rounds as rounds_codec
from fltrust.wire import tpm as tpm_codec
from fltrust.wire import trust as trust_codec
from fltrust.wire.pb import (
    artifacts_pb2,
    credentials_pb2,
    enrollment_pb2,
    federation_pb2,
    operations_pb2,
    requests_pb2,
    rounds_pb2,
    trust_pb2,
)
from fltrust.wire.values import MAX_MESSAGE, bounded


@dataclass(frozen=True, slots=True)
class Unary:
    """One method with one request and one response; `act` runs on a thread of its lane."""

    request: type[Message]
    act: Callable[[Session, Any], Message]
    is_write: bool = False
    urgency: Urgency = Urgency.USUAL
    limit: int = MAX_MESSAGE
    """Bytes of the request. A method that takes more has a few slots of its own."""


@dataclass(frozen=True, slots=True)
class Streamed:
    """One method with one request and many responses; `act` starts them, each is made on a thread."""

    request: type[Message]
    act: Callable[[Session, Any], Iterator[Message]]


def _renew(session: Session, request: enrollment_pb2.RenewRequest) -> Message:
    issued = session.renew(enrollment_codec.renew_request_from_pb(request))
    return enrollment_pb2.RenewResponse(issued=enrollment_codec.issued_to_pb(issued))


def _certify_workload(session: Session, request: enrollment_pb2.CertifyWorkloadRequest) -> Message:
    issued = session.certify_workload(enrollment_codec.certify_workload_request_from_pb(request))
    return enrollment_pb2.CertifyWorkloadResponse(issued=enrollment_codec.issued_to_pb(issued))


def _get_bundle(session: Session, _request: trust_pb2.GetBundleRequest) -> Message:
    return trust_pb2.GetBundleResponse(bundle=enrollment_codec.bundle_to_pb(session.bundle()))


def _create_token(session: Session, request: enrollment_pb2.CreateTokenRequest) -> Message:
    role, name, ttl, replace, dns_names = enrollment_codec.create_token_request_from_pb(request)
    token = session.create_token(role, name, ttl=ttl, replace=replace, dns_names=dns_names)
    return enrollment_pb2.CreateTokenResponse(token=encode_token(token))


def _create_credential(session: Session, request: credentials_pb2.CreateCredentialRequest) -> Message:
    purpose, role, name, ttl, replace, dns_names = credentials_codec.create_request_from_pb(request)
    made = session.create_credential(purpose, role, name, ttl=ttl, replace=replace, dns_names=dns_names)
    return credentials_codec.credential_to_pb(made)


def _list_tokens(session: Session, _request: enrollment_pb2.ListTokensRequest) -> Message:
    tokens = [enrollment_codec.token_record_to_pb(record) for record in session.list_tokens()]
    return enrollment_pb2.ListTokensResponse(tokens=tokens)


def _cancel_token(session: Session, request: enrollment_pb2.CancelTokenRequest) -> Message:
    record = session.cancel_token(enrollment_codec.cancel_token_request_from_pb(request))
    return enrollment_pb2.CancelTokenResponse(token=enrollment_codec.token_record_to_pb(record))


def _list_participants(session: Session, _request: enrollment_pb2.ListParticipantsRequest) -> Message:
    found = [enrollment_codec.participant_to_pb(record) for record in session.list_enrollments()]
    return enrollment_pb2.ListParticipantsResponse(participants=found)


def _get_participant(session: Session, request: enrollment_pb2.GetParticipantRequest) -> Message:
    record = session.get_enrollment(enrollment_codec.get_participant_request_from_pb(request))
    return enrollment_pb2.GetParticipantResponse(participant=enrollment_codec.participant_to_pb(record))


def _revoke(session: Session, request: trust_pb2.RevokeRequest) -> Message:
    target, reason, since = trust_codec.revoke_request_from_pb(request)
    events = session.revoke(target, reason=reason, compromised_since=since)
    return trust_pb2.RevokeResponse(events=_events(events))


def _hold(session: Session, request: trust_pb2.HoldRequest) -> Message:
    target, reason = trust_codec.hold_request_from_pb(request)
    return trust_pb2.HoldResponse(events=_events(session.hold(target, reason=reason)))


def _release(session: Session, request: trust_pb2.ReleaseRequest) -> Message:
    events = session.release(trust_codec.release_request_from_pb(request))
    return trust_pb2.ReleaseResponse(events=_events(events))


def _events(events: Iterable[TrustEvent]) -> list[trust_pb2.TrustEvent]:
    return [trust_codec.event_to_pb(event) for event in events]


def _open_round(session: Session, request: rounds_pb2.OpenRoundRequest) -> Message:
    key, cohort = rounds_codec.open_request_from_pb(request)
    return rounds_codec.opened_to_pb(session.open_round(key, cohort))


def _close_run(session: Session, request: rounds_pb2.CloseRunRequest) -> Message:
    session.close_run(RunId(request.run_id))
    return rounds_pb2.CloseRunResponse()


def _list_rounds(session: Session, request: rounds_pb2.ListRoundsRequest) -> Message:
    run_id = RunId(request.run_id) if request.HasField("run_id") else None
    rounds = [rounds_codec.record_to_pb(r, with_evidence=False) for r in session.list_rounds(run_id)]
    return rounds_pb2.ListRoundsResponse(rounds=rounds)


def _get_round(session: Session, request: rounds_pb2.GetRoundRequest) -> Message:
    record = session.get_round(RunId(request.run_id), request.step)
    return rounds_pb2.GetRoundResponse(round=rounds_codec.record_to_pb(record))


def _certify_signer(session: Session, request: artifacts_pb2.CertifySignerRequest) -> Message:
    return artifacts_codec.chain_to_pb(
        session.certify_signer(artifacts_codec.certify_request_from_pb(request))
    )


def _countersign(session: Session, request: artifacts_pb2.CountersignRequest) -> Message:
    envelope, certificate, kind = artifacts_codec.countersign_request_from_pb(request)
    return artifacts_pb2.CountersignResponse(
        bundle=session.countersign(envelope, certificate, entry_kind=kind)
    )


def _describe_round(session: Session, request: artifacts_pb2.DescribeRoundRequest) -> Message:
    return artifacts_codec.facts_to_pb(session.describe_round(RunId(request.run_id), request.step))


def _blast_radius(session: Session, request: artifacts_pb2.BlastRadiusRequest) -> Message:
    who, since = artifacts_codec.blast_request_from_pb(request)
    return artifacts_codec.blast_to_pb(session.blast_radius(who, since))


def _get_trust(session: Session, _request: artifacts_pb2.GetTrustRequest) -> Message:
    return artifacts_pb2.GetTrustResponse(trust=session.trust_file())


def _list_foreign(session: Session, _request: federation_pb2.ListForeignDomainsRequest) -> Message:
    is_operator = session.caller.spiffe_id.role is Role.OPERATOR
    domains = [
        federation_codec.domain_to_pb(
            record, is_held=session.is_domain_held(record.domain), with_lent=is_operator
        )
        for record in session.list_foreign()
    ]
    return federation_pb2.ListForeignDomainsResponse(domains=domains)


def _prove_rounds(session: Session, request: rounds_pb2.ProveRoundsRequest) -> Iterator[Message]:
    return iter(rounds_codec.evidence_to_pb(session.prove_rounds(RunId(request.run_id))))


def _find_lineage(session: Session, request: artifacts_pb2.FindLineageRequest) -> Iterator[Message]:
    query = artifacts_codec.lineage_request_from_pb(request)
    return (artifacts_pb2.FindLineageResponse(bundle=bundle) for bundle in session.find_lineage(query))


def _audit(session: Session, request: artifacts_pb2.AuditRequest) -> Iterator[Message]:
    query = artifacts_codec.audit_request_from_pb(request)
    return (artifacts_pb2.AuditResponse(line=line) for line in session.audit(query))


def seal(session: Session, parts: rounds_codec.SealParts) -> Message:
    """The one method whose request is a stream of messages."""
    key, candidates, refused = parts.finish()
    return rounds_pb2.SealRoundResponse(receipt=session.seal_round(key, candidates, refused))


UNARY: Mapping[str, Unary] = MappingProxyType(
    {
        methods.RENEW: Unary(enrollment_pb2.RenewRequest, _renew, is_write=True),
        methods.CERTIFY_WORKLOAD: Unary(
            enrollment_pb2.CertifyWorkloadRequest, _certify_workload, is_write=True
        ),
        methods.GET_BUNDLE: Unary(trust_pb2.GetBundleRequest, _get_bundle),
        methods.CREATE_TOKEN: Unary(enrollment_pb2.CreateTokenRequest, _create_token, is_write=True),
        methods.CREATE_CREDENTIAL: Unary(
            credentials_pb2.CreateCredentialRequest, _create_credential, is_write=True
        ),
        methods.LIST_TOKENS: Unary(enrollment_pb2.ListTokensRequest, _list_tokens),
        methods.CANCEL_TOKEN: Unary(enrollment_pb2.CancelTokenRequest, _cancel_token, is_write=True),
        methods.LIST_PARTICIPANTS: Unary(enrollment_pb2.ListParticipantsRequest, _list_participants),
        methods.GET_PARTICIPANT: Unary(enrollment_pb2.GetParticipantRequest, _get_participant),
        methods.REVOKE: Unary(trust_pb2.RevokeRequest, _revoke, is_write=True, urgency=Urgency.NOW),
        methods.HOLD: Unary(trust_pb2.HoldRequest, _hold, is_write=True, urgency=Urgency.NOW),
        methods.RELEASE: Unary(trust_pb2.ReleaseRequest, _release, is_write=True),
        methods.OPEN_ROUND: Unary(rounds_pb2.OpenRoundRequest, _open_round, is_write=True),
        methods.CLOSE_RUN: Unary(rounds_pb2.CloseRunRequest, _close_run, is_write=True),
        methods.LIST_ROUNDS: Unary(rounds_pb2.ListRoundsRequest, _list_rounds),
        methods.GET_ROUND: Unary(rounds_pb2.GetRoundRequest, _get_round),
        methods.CERTIFY_SIGNER: Unary(artifacts_pb2.CertifySignerRequest, _certify_signer, is_write=True),
        methods.COUNTERSIGN: Unary(
            artifacts_pb2.CountersignRequest,
            _countersign,
            is_write=True,
            limit=artifacts_codec.MAX_COUNTERSIGN,
        ),
        methods.DESCRIBE_ROUND: Unary(artifacts_pb2.DescribeRoundRequest, _describe_round),
        methods.BLAST_RADIUS: Unary(artifacts_pb2.BlastRadiusRequest, _blast_radius),
        methods.LIST_REQUESTS: Unary(
            requests_pb2.ListRequestsRequest, registrar.list_requests, is_write=True
        ),
        methods.GET_REQUEST: Unary(requests_pb2.GetRequestRequest, registrar.get_request, is_write=True),
        methods.APPROVE_REQUEST: Unary(
            requests_pb2.ApproveRequestRequest, registrar.approve_request, is_write=True
        ),
        methods.DENY_REQUEST: Unary(requests_pb2.DenyRequestRequest, registrar.deny_request, is_write=True),
        methods.ENROLL_BULK: Unary(requests_pb2.EnrollBulkRequest, registrar.enroll_bulk, is_write=True),
        methods.RENEW_BULK: Unary(requests_pb2.RenewBulkRequest, registrar.renew_bulk, is_write=True),
        methods.CREATE_TOKENS: Unary(
            requests_pb2.CreateTokensRequest, registrar.create_tokens, is_write=True
        ),
        methods.PROPOSE_OPERATION: Unary(
            operations_pb2.ProposeOperationRequest, registrar.propose_operation, is_write=True
        ),
        methods.DECIDE_OPERATION: Unary(
            operations_pb2.DecideOperationRequest, registrar.decide_operation, is_write=True
        ),
        methods.LIST_OPERATIONS: Unary(operations_pb2.ListOperationsRequest, registrar.list_operations),
        methods.GET_OPERATION: Unary(operations_pb2.GetOperationRequest, registrar.get_operation),
        methods.LIST_FOREIGN_DOMAINS: Unary(federation_pb2.ListForeignDomainsRequest, _list_foreign),
        methods.GET_TRUST: Unary(artifacts_pb2.GetTrustRequest, _get_trust),
    }
)
"""The unary methods of the mTLS port; Watch and SealRound are streams, see `fltrust.coordinator.rpc`."""

STREAMED: Mapping[str, Streamed] = MappingProxyType(
    {
        methods.PROVE_ROUNDS: Streamed(rounds_pb2.ProveRoundsRequest, _prove_rounds),
        methods.FIND_LINEAGE: Streamed(artifacts_pb2.FindLineageRequest, _find_lineage),
        methods.FIND_PARTICIPANTS: Streamed(
            enrollment_pb2.FindParticipantsRequest, registrar.find_participants
        ),
        methods.AUDIT: Streamed(artifacts_pb2.AuditRequest, _audit),
    }
)
"""Methods that answer with a stream that ends."""


@dataclass(frozen=True, slots=True)
class Open:
    """One method that needs no certificate."""

    request: type[Message]
    act: Callable[[Authority, Any, str], Message]
    """The third is where the call comes from."""
    is_write: bool = False


def _enroll(authority: Authority, request: enrollment_pb2.EnrollRequest, source: str) -> Message:
    wanted = replace(enrollment_codec.enroll_request_from_pb(request), source=source)
    issued, pending = requests_codec.outcome_to_pb(authority.submit(wanted))
    return enrollment_pb2.EnrollResponse(issued=issued, pending=pending)


def _collect(authority: Authority, request: enrollment_pb2.CollectRequest, _source: str) -> Message:
    request_id = requests_codec.request_id_from_pb(request.request_id)
    csr = bounded(request.csr, limit=MAX_CSR, what="a certificate request")
    issued, pending = requests_codec.outcome_to_pb(authority.collect(request_id, csr))
    return enrollment_pb2.CollectResponse(issued=issued, pending=pending)


def _challenge_tpm(
    authority: Authority, request: enrollment_pb2.ChallengeTpmRequest, _source: str
) -> Message:
    challenge = authority.challenge_tpm(tpm_codec.introduction_from_pb(request))
    return tpm_codec.challenge_to_pb(challenge)


def _open_bundle(authority: Authority, _request: trust_pb2.GetBundleRequest, _source: str) -> Message:
    return trust_pb2.GetBundleResponse(bundle=enrollment_codec.bundle_to_pb(authority.bundle()))


BOOTSTRAP: Mapping[str, Open] = MappingProxyType(
    {
        methods.ENROLL: Open(enrollment_pb2.EnrollRequest, _enroll, is_write=True),
        methods.COLLECT: Open(enrollment_pb2.CollectRequest, _collect, is_write=True),
        methods.CHALLENGE_TPM: Open(enrollment_pb2.ChallengeTpmRequest, _challenge_tpm),
        methods.GET_BUNDLE: Open(trust_pb2.GetBundleRequest, _open_bundle),
    }
)
"""The methods of the bootstrap port."""
