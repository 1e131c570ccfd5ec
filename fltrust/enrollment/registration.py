"""The registration authority: evidence and a request in, an identity that may be issued to out.

Decisions only: what is stored and signed is the caller's, in one transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from fltrust.enrollment.challenge import check_node_key_proof
from fltrust.enrollment.ports import (
    CertificateStore,
    EnrollmentStore,
    EvidenceChecker,
    ExaminingChecker,
    RecordChecker,
    TokenStore,
)
from fltrust.enrollment.token import SECRET_BYTES, hash_of
from fltrust.enrollment.types import (
    Approval,
    EnrollRequest,
    Evidence,
    JoinTokenEvidence,
    TokenRecord,
    TokenStatus,
)
from fltrust.errors import Conflict, Malformed, Refusal, Revoked, TokenRefused
from fltrust.identity import KeyId, Role, SpiffeId, TrustDomain
from fltrust.keys.openssh import spki_der
from fltrust.pki.csr import parse_request
from fltrust.pki.leaf_keys import LeafKey
from fltrust.revocation.state import IdentityState, Standing

NEVER_JOIN = frozenset({Role.COORDINATOR, Role.WORKLOAD})
"""Roles that no evidence and no operator gives: the coordinator never joins, and a workload is vouched for
by its agent, as which it stands."""


@dataclass(frozen=True, slots=True)
class CheckedRequest:
    """A request whose signatures were checked: its keys are held by whoever asks."""

    public_key: LeafKey
    key_id: KeyId
    node_key: bytes | None
    csr_der: bytes | None = None
    """The request itself, for an issuing CA that wants to see it."""


def check_request(request: EnrollRequest) -> CheckedRequest:
    """Check everything about a request that needs no record, before a transaction is begun.

    1. The certificate request is bounded, well formed and signed by its own key.
    2. Node key and proof come together; the node key signed this request and this evidence.

    Raises `Malformed`, `Oversized` or `SignatureInvalid`.
    """
    # 1.
    public_key = parse_request(request.csr_der)
    # 2.
    if (request.node_key is None) != (request.node_key_proof is None):
        raise Malformed("expected a node key together with its proof, got one without the other")
    if request.node_key is not None and request.node_key_proof is not None:
        check_node_key_proof(
            node_key=request.node_key,
            proof=request.node_key_proof,
            csr_der=request.csr_der,
            evidence=request.evidence,
        )
    key_id = KeyId.of_spki(spki_der(public_key))
    return CheckedRequest(public_key, key_id, request.node_key, request.csr_der)


class JoinTokenChecker:
    """Evidence of the first kind: a one-time secret, spent in the transaction that issues."""

    kind = "join-token"

    def accepts(self, evidence: Evidence) -> bool:
        return isinstance(evidence, JoinTokenEvidence)

    def approve(self, evidence: Evidence, *, tokens: TokenStore, now: datetime) -> Approval:
        """Spend the token, once, even in a race; raises `TokenRefused` with the reason in its state."""
        if not isinstance(evidence, JoinTokenEvidence) or len(evidence.secret) != SECRET_BYTES:
            raise Malformed(f"expected a join token's secret of {SECRET_BYTES} bytes")
        record = tokens.find(hash_of(evidence.secret), now=now)
        if record is None:
            raise TokenRefused(
                "the join token is not known here",
                hint="is it for this coordinator? ask its operator for a new one",
            )
        return spend_token(record, tokens=tokens, now=now)


def spend_token(record: TokenRecord, *, tokens: TokenStore, now: datetime) -> Approval:
    """Spend a token that its holder was proved to have, once, even in a race; `TokenRefused` otherwise."""
    if record.status is not TokenStatus.PENDING or not tokens.spend(record.token_id, now=now):
        raise _refused(tokens.get(record.token_id, now=now) or record)
    return Approval(
        record.role, record.name, record.replace, granted_by=record.created_by, dns_names=record.dns_names
    )


def _refused(record: TokenRecord) -> TokenRefused:
    return TokenRefused(
        f"join token {record.token_id} for {record.role}/{record.name} is {record.status}",
        reason=f"token-{record.status}",
        hint="a token works once and for a short time; ask an operator for a new one",
    )


def examine(request: EnrollRequest, *, checkers: Sequence[EvidenceChecker], now: datetime) -> Evidence:
    """Give the evidence that `approve` is to judge, verified as far as that needs no record.

    For before the transaction. Evidence of an unknown kind raises `Malformed`.
    """
    for checker in checkers:
        if checker.accepts(request.evidence):
            return (
                checker.examine(request, now=now)
                if isinstance(checker, ExaminingChecker)
                else request.evidence
            )
    raise _unknown(request.evidence)


def _unknown(evidence: Evidence) -> Malformed:
    return Malformed(f"expected evidence of a known kind, got {type(evidence).__name__}")


def approve(
    evidence: Evidence,
    *,
    checkers: Sequence[EvidenceChecker],
    tokens: TokenStore,
    certificates: CertificateStore,
    enrollments: EnrollmentStore,
    now: datetime,
) -> tuple[Approval, str]:
    """Let the checker of this kind of evidence decide; an unknown kind is refused."""
    for checker in checkers:
        if checker.accepts(evidence):
            if isinstance(checker, RecordChecker):
                checker.confirm(evidence, certificates=certificates, enrollments=enrollments)
            return checker.approve(evidence, tokens=tokens, now=now), checker.kind
    raise _unknown(evidence)


def admit_enrollment(
    approval: Approval,
    request: CheckedRequest,
    *,
    domain: TrustDomain,
    standing: IdentityState | None,
    enrollments: EnrollmentStore,
    certificates: CertificateStore,
) -> SpiffeId:
    """Decide whether an approved request may enroll; return the identity, made from the record.

    0. Its role is one that joins (`NEVER_JOIN`), else `Malformed`.
    1. A participant brings a node key; nobody else does, else `Malformed`.
    2. A name on hold is refused (``held``): an operator releases it first.
    3. A name that is enrolled (`Conflict`) or revoked (`Revoked`) needs an approval that replaces.
    4. The certificate's key was never certified, for anybody, else `Conflict`.
    5. The node key was never enrolled by another participant; one that was revoked needs a fresh one.
    """
    who = SpiffeId(domain, approval.role, approval.name)
    # 0.
    if approval.role in NEVER_JOIN:
        raise Malformed(f"expected a role that joins, got {approval.role}")
    # 1.
    if (request.node_key is not None) != (approval.role is Role.PARTICIPANT):
        raise Malformed(f"expected a node key from a participant and from nobody else, for {who}")
    # 2. and 3.
    if standing is not None:
        check_standing(who, standing, replace=approval.replace)
    # 4.
    refuse_used_key(request.key_id, who, certificates=certificates)
    # 5.
    if request.node_key is not None:
        owner = enrollments.node_key_owner(KeyId.of_spki(request.node_key))
        revoked = standing is not None and standing.standing is Standing.REVOKED
        if owner is not None and (owner != who or revoked):
            raise Conflict(
                f"expected a node key of {who}'s own that was not revoked with it, "
                f"got one that was enrolled for {'another participant' if owner != who else 'it before'}",
                reason="node-key-taken",
                hint="make a new node key",
            )
    return who


def check_standing(who: SpiffeId, standing: IdentityState, *, replace: bool) -> None:
    """Return only if a name that stands like this may be enrolled; one that is enrolled or revoked needs an
    approval that replaces, one on hold an operator who releases it."""
    if standing.standing is Standing.HELD:
        raise Revoked(
            f"{who} is on hold since epoch {standing.since}",
            reason=Refusal.HELD,
            hint="an operator releases it, or revokes it and creates a token with --replace",
        )
    if replace:
        return
    hint = "an operator creates a token with --replace to enroll it anew"
    if standing.standing is Standing.REVOKED:
        raise Revoked(f"{who} was revoked at epoch {standing.since}", hint=hint)
    raise Conflict(f"{who} is enrolled already", reason="already-enrolled", hint=hint)


def refuse_used_key(
    key: KeyId, who: SpiffeId, *, certificates: CertificateStore, kept: KeyId | None = None
) -> None:
    """Return only if no certificate was ever issued for this key, or it is `kept`: the key that its holder
    calls with, and goes on with because it cannot leave its hardware."""
    earlier = certificates.by_key(key)
    if earlier is not None and not (kept == key and earlier.spiffe_id == who):
        whose = "of its own" if earlier.spiffe_id == who else "of somebody else"
        raise Conflict(
            f"expected a new key for {who}, got the key of an earlier certificate {whose}",
            reason="key-reused",
            hint="make a new key, or renew with the key of the certificate that you call with",
        )
