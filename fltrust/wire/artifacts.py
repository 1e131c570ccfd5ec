"""Signing, lineage and audit on the wire."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from fltrust.artifacts.bundle import MAX_BUNDLE
from fltrust.artifacts.ports import (
    BlastRadius,
    Contribution,
    EntryKind,
    RoundFacts,
    SpoiltAggregate,
    SpoiltModel,
    SpoiltRound,
    StepOfRun,
)
from fltrust.artifacts.trustfile import MAX_TRUST
from fltrust.errors import Malformed
from fltrust.identity import Digest, Epoch, RunId, SpiffeId
from fltrust.updates.receipt import MAX_COHORT
from fltrust.wire.audit import MAX_LINE
from fltrust.wire.pb import artifacts_pb2 as pb
from fltrust.wire.values import (
    at_most,
    bounded,
    missing,
    spiffe_or_none,
    text_of,
    text_within,
    time_from_field,
    time_from_optional,
    time_to_pb,
    word,
)

MAX_SENT_ENVELOPE = 48 * 1024 * 1024
"""Bytes of one envelope to countersign, and of the bundle that comes back: 100,000 files fit. A larger
statement can be verified (`fltrust.artifacts.envelope`), and is not signed here."""
MAX_COUNTERSIGN = MAX_SENT_ENVELOPE + 64 * 1024
"""Bytes of the whole request."""
MAX_SPOILT = 1_000_000
"""Rounds, aggregates or models in one blast radius."""
_MAX_CSR = 16 * 1024
_MAX_CERTIFICATE = 16 * 1024
_MAX_CHAIN = 8
_MAX_PUBLIC_NAME = 512
_MAX_SUBJECT_NAME = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditQuery:
    """Which entries of the log an audit asks for; what is None does not narrow it."""

    participant: SpiffeId | None = None
    run_id: RunId | None = None
    since: datetime | None = None
    until: datetime | None = None


def certify_request_from_pb(message: pb.CertifySignerRequest) -> bytes:
    return bounded(message.csr, limit=_MAX_CSR, what="a certificate request")


def chain_to_pb(chain: tuple[bytes, ...]) -> pb.CertifySignerResponse:
    return pb.CertifySignerResponse(chain=chain)


def chain_from_pb(message: pb.CertifySignerResponse) -> tuple[bytes, ...]:
    at_most(message.chain, _MAX_CHAIN, what="certificates in a chain")
    if not message.chain:
        raise Malformed("expected a certificate chain, got nothing")
    return tuple(bounded(der, limit=_MAX_CERTIFICATE, what="a certificate") for der in message.chain)


def countersign_request_to_pb(
    envelope: bytes, certificate: bytes, entry_kind: EntryKind
) -> pb.CountersignRequest:
    return pb.CountersignRequest(envelope=envelope, certificate=certificate, entry_kind=entry_kind)


def countersign_request_from_pb(message: pb.CountersignRequest) -> tuple[bytes, bytes, EntryKind]:
    """Envelope, leaf, and the kind of log entry; none given is `EntryKind.HASHEDREKORD`."""
    kind = message.entry_kind or EntryKind.HASHEDREKORD.value
    return (
        bounded(message.envelope, limit=MAX_SENT_ENVELOPE, what="an envelope"),
        bounded(message.certificate, limit=_MAX_CERTIFICATE, what="a certificate"),
        word(EntryKind, kind, what="an entry kind"),
    )


def countersign_response_from_pb(message: pb.CountersignResponse) -> bytes:
    return bounded(message.bundle, limit=MAX_BUNDLE, what="a bundle")


def contribution_to_pb(contribution: Contribution) -> pb.Contribution:
    return pb.Contribution(
        participant=str(contribution.participant),
        public_name=contribution.public_name,
        update=str(contribution.update),
        certificate=str(contribution.certificate),
    )


def contribution_from_pb(message: pb.Contribution) -> Contribution:
    name = text_within(message.public_name, limit=_MAX_PUBLIC_NAME, what="a public name")
    if not name:
        raise Malformed("expected the public name of a contribution, got none")
    return Contribution(
        participant=SpiffeId.parse(message.participant),
        public_name=name,
        update=Digest.parse(message.update),
        certificate=Digest.parse(message.certificate),
    )


def facts_to_pb(facts: RoundFacts) -> pb.DescribeRoundResponse:
    return pb.DescribeRoundResponse(
        run_id=facts.run_id,
        step=facts.step,
        round=facts.round,
        epoch=facts.epoch,
        log_index=facts.log_index,
        receipt=str(facts.receipt),
        trained_from=str(facts.trained_from),
        opened_at=time_to_pb(facts.opened_at),
        sealed_at=time_to_pb(facts.sealed_at),
        contributions=[contribution_to_pb(c) for c in facts.contributions],
    )


def facts_from_pb(message: pb.DescribeRoundResponse) -> RoundFacts:
    at_most(message.contributions, MAX_COHORT, what="contributions to a round")
    return RoundFacts(
        run_id=RunId(message.run_id),
        step=message.step,
        round=message.round,
        epoch=Epoch(message.epoch),
        log_index=message.log_index,
        receipt=Digest.parse(message.receipt),
        trained_from=Digest.parse(message.trained_from),
        opened_at=time_from_field(message, "opened_at"),
        sealed_at=time_from_field(message, "sealed_at"),
        contributions=tuple(contribution_from_pb(c) for c in message.contributions),
    )


def lineage_request_to_pb(query: Digest | StepOfRun) -> pb.FindLineageRequest:
    if isinstance(query, Digest):
        return pb.FindLineageRequest(tensors=str(query))
    return pb.FindLineageRequest(step=pb.StepOfRun(run_id=query.run_id, step=query.step))


def lineage_request_from_pb(message: pb.FindLineageRequest) -> Digest | StepOfRun:
    match message.WhichOneof("query"):
        case "tensors":
            return Digest.parse(message.tensors)
        case "step":
            return StepOfRun(RunId(message.step.run_id), message.step.step)
        case _:
            raise missing("a tensor set or a step of a run to find the lineage of")


def lineage_response_from_pb(message: pb.FindLineageResponse) -> bytes:
    return bounded(message.bundle, limit=MAX_BUNDLE, what="a bundle")


def blast_request_to_pb(who: SpiffeId, since: datetime) -> pb.BlastRadiusRequest:
    return pb.BlastRadiusRequest(participant=str(who), since=time_to_pb(since))


def blast_request_from_pb(message: pb.BlastRadiusRequest) -> tuple[SpiffeId, datetime]:
    return SpiffeId.parse(message.participant), time_from_field(message, "since")


def blast_to_pb(found: BlastRadius) -> pb.BlastRadiusResponse:
    return pb.BlastRadiusResponse(
        rounds=[
            pb.SpoiltRound(
                run_id=r.run_id,
                step=r.step,
                round=r.round,
                log_index=r.log_index,
                signed_at=time_to_pb(r.signed_at),
            )
            for r in found.rounds
        ],
        aggregates=[
            pb.SpoiltAggregate(
                run_id=a.run_id,
                step=a.step,
                round=a.round,
                tensors=str(a.tensors),
                log_index=a.log_index,
                is_direct=a.is_direct,
            )
            for a in found.aggregates
        ],
        models=[
            pb.SpoiltModel(name=m.name, subject=str(m.subject), log_index=m.log_index, is_direct=m.is_direct)
            for m in found.models
        ],
    )


def blast_from_pb(message: pb.BlastRadiusResponse, *, who: SpiffeId, since: datetime) -> BlastRadius:
    """Read the answer to the question about `who` since `since`, which the answer does not repeat."""
    for items, what in (
        (message.rounds, "rounds"),
        (message.aggregates, "aggregates"),
        (message.models, "models"),
    ):
        at_most(items, MAX_SPOILT, what=f"{what} in a blast radius")
    return BlastRadius(
        participant=who,
        since=since,
        rounds=tuple(
            SpoiltRound(RunId(r.run_id), r.step, r.round, r.log_index, time_from_field(r, "signed_at"))
            for r in message.rounds
        ),
        aggregates=tuple(
            SpoiltAggregate(
                RunId(a.run_id), a.step, a.round, Digest.parse(a.tensors), a.log_index, a.is_direct
            )
            for a in message.aggregates
        ),
        models=tuple(
            SpoiltModel(
                text_within(m.name, limit=_MAX_SUBJECT_NAME, what="a model's name"),
                Digest.parse(m.subject),
                m.log_index,
                m.is_direct,
            )
            for m in message.models
        ),
    )


def trust_response_from_pb(message: pb.GetTrustResponse) -> bytes:
    return bounded(message.trust, limit=MAX_TRUST, what="a trust file")


def audit_request_to_pb(query: AuditQuery) -> pb.AuditRequest:
    message = pb.AuditRequest(participant=text_of(query.participant))
    if query.run_id is not None:
        message.run_id = query.run_id
    if query.since is not None:
        message.since.CopyFrom(time_to_pb(query.since))
    if query.until is not None:
        message.until.CopyFrom(time_to_pb(query.until))
    return message


def audit_request_from_pb(message: pb.AuditRequest) -> AuditQuery:
    return AuditQuery(
        participant=spiffe_or_none(message.participant),
        run_id=RunId(message.run_id) if message.HasField("run_id") else None,
        since=time_from_optional(message, "since"),
        until=time_from_optional(message, "until"),
    )


def audit_response_from_pb(message: pb.AuditResponse) -> bytes:
    return bounded(message.line, limit=MAX_LINE, what="a line of the audit")
