"""What one caller may do: every call is decided afresh, by its certificate and the present epoch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from fltrust.artifacts.ports import BlastRadius, EntryKind, RoundFacts, StepOfRun
from fltrust.clock import to_rfc3339
from fltrust.coordinator import standing
from fltrust.coordinator.ledger import Work
from fltrust.coordinator.permissions import check_permission
from fltrust.coordinator.registrar_session import RegistrarSession
from fltrust.enrollment.foreign import ForeignDomain
from fltrust.enrollment.mackeys import MacCredential, MacPurpose
from fltrust.enrollment.operation_kinds import BULK_REVOKE, RELEASE_HOLD
from fltrust.enrollment.types import Enrollment, Issued, JoinToken, TokenRecord
from fltrust.errors import CertificateRefused, Malformed, Refusal
from fltrust.identity import Digest, Epoch, KeyId, Name, Role, RunId, Serial, SpiffeId, TrustDomain
from fltrust.pki.types import TrustBundle, VerifiedCertificate
from fltrust.revocation.events import FeedHeartbeat, FeedItem, RevocationReason, TrustEvent
from fltrust.revocation.ports import RevocationTarget
from fltrust.rounds.logged import LogEvidence
from fltrust.rounds.types import Candidate, CohortMember, Opened, RoundKey, RoundRecord
from fltrust.wire.artifacts import AuditQuery

if TYPE_CHECKING:
    from fltrust.coordinator.authority import Authority

_WATCH_BATCH = 256


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: the certificate that the TLS layer verified, and what it says."""

    spiffe_id: SpiffeId
    serial: Serial
    key_id: KeyId
    certificate: VerifiedCertificate

    @classmethod
    def of(cls, certificate: VerifiedCertificate) -> Caller:
        return cls(certificate.spiffe_id, certificate.serial, certificate.key_id, certificate)


class Session(RegistrarSession):
    """One caller's view of the authority.

    Implements renewal, `TokenDesk`, `ParticipantDirectory`, `Revoker`, `TrustFeed`, `RoundAuthority`,
    `RoundArchive`, `SigningDesk` and `LineageArchive`. Every method first checks, in this order: the
    certificate has not run out (``certificate-expired``), stands well at the present epoch (``revoked``,
    ``held``, ``unknown-identity``), and its role may call the method (``permission-denied``).
    """

    def __init__(self, authority: Authority, caller: Caller) -> None:
        self._authority = authority
        self._caller = caller

    @property
    def caller(self) -> Caller:
        return self._caller

    @property
    def _certificate(self) -> VerifiedCertificate:
        return self._caller.certificate

    def now(self) -> datetime:
        """The time that the authority goes by; tells nobody anything."""
        return self._authority.now()

    def bundle(self) -> TrustBundle:
        with self._allowed("TrustService/GetBundle"):
            return self._authority.bundle()

    def renew(self, csr_der: bytes, *, message: bytes | None = None) -> Issued:
        """Issue the caller's next certificate, for a new key. The old one stays good until it runs out.

        `message`: what was signed to ask, where that is no connection's doing; see `Enroller.renew`.
        """
        with self._allowed("EnrollmentService/Renew"):
            return self._authority.enroller.renew(self._caller.certificate, csr_der, message=message)

    def check_own(self) -> None:
        """Return only if the caller may decide about its own certificates: renew them, give them up."""
        with self._allowed("EnrollmentService/Renew"):
            return

    def certify_workload(self, csr_der: bytes) -> Issued:
        """Issue a certificate for the workload beside the caller, for a new key; see `Workloads.certify`."""
        with self._allowed("EnrollmentService/CertifyWorkload"):
            return self._authority.enroller.certify_workload(self._caller.certificate, csr_der)

    def create_token(
        self,
        role: Role,
        name: Name,
        *,
        ttl: timedelta,
        replace: bool = False,
        dns_names: tuple[str, ...] = (),
    ) -> JoinToken:
        """Make a single-use join token for this name; with the DNS names of a server."""
        with self._allowed("TokenService/CreateToken"):
            return self._authority.tokens.create(
                SpiffeId(self._caller.spiffe_id.domain, role, name),
                ttl=ttl,
                replace=replace,
                dns_names=dns_names,
                caller=self._caller.certificate,
            )

    def create_credential(
        self,
        purpose: MacPurpose,
        role: Role,
        name: Name,
        *,
        ttl: timedelta,
        replace: bool = False,
        dns_names: tuple[str, ...] = (),
    ) -> MacCredential:
        """Make a single-use credential of a protocol that shares a key with the client (ACME, CMP)."""
        with self._allowed("CredentialService/CreateCredential"):
            return self._authority.credentials.create(
                purpose,
                SpiffeId(self._caller.spiffe_id.domain, role, name),
                ttl=ttl,
                replace=replace,
                dns_names=dns_names,
                caller=self._caller.certificate,
            )

    def list_tokens(self) -> tuple[TokenRecord, ...]:
        with self._allowed("TokenService/ListTokens"):
            return self._authority.tokens.list()

    def cancel_token(self, token_id: str) -> TokenRecord:
        """Cancel a pending token; one that is cancelled already is returned as it is."""
        with self._allowed("TokenService/CancelToken"):
            return self._authority.tokens.cancel(token_id, caller=self._caller.certificate)

    def list_enrollments(self) -> tuple[Enrollment, ...]:
        with self._allowed("ParticipantService/ListParticipants"):
            return self._authority.enrollments()

    def get_enrollment(self, who: SpiffeId) -> Enrollment:
        with self._allowed("ParticipantService/GetParticipant"):
            return self._authority.enrollment(who)

    def revoke(
        self,
        target: RevocationTarget,
        *,
        reason: RevocationReason,
        compromised_since: datetime | None = None,
    ) -> tuple[TrustEvent, ...]:
        """Revoke, durably. What is revoked already gives its event again; see `standing.revoke`.

        Everybody in a run at once is for a quorum where there is one; one by one, and a hold, never are.
        With `compromised_since`, what contains the participant's updates from then on is tainted at once.
        """
        with self._allowed("RevocationService/Revoke"):
            if target.run is not None:
                self._demand_quorum(BULK_REVOKE)
            return self._change(
                target,
                lambda subject, work: self._revoke(
                    subject, work, reason=reason, compromised_since=compromised_since
                ),
                check=lambda work: _check_since(compromised_since, work.now),
            )

    def hold(self, target: RevocationTarget, *, reason: RevocationReason) -> tuple[TrustEvent, ...]:
        """Put on hold, durably. A run's revoked participants are passed over."""
        with self._allowed("RevocationService/Hold"):
            return self._change(
                target,
                lambda subject, work: standing.hold(
                    subject, work, actor=self._caller.spiffe_id, reason=reason
                ),
                passing_over=target.run is not None,
            )

    def release(self, target: RevocationTarget) -> tuple[TrustEvent, ...]:
        """End holds, durably. Of a run, those on hold are released and the others passed over."""
        with self._allowed("RevocationService/Release"):
            self._demand_quorum(RELEASE_HOLD)
            return self._change(
                target,
                lambda subject, work: standing.release(subject, work, actor=self._caller.spiffe_id),
                passing_over=target.run is not None,
            )

    def watch(self, after: Epoch) -> Iterator[FeedItem]:
        """Yield events after `after`, as this caller may read them, and heartbeats when idle.

        The caller is judged before every item that it waits for: a watcher that is revoked sees that
        event, then `Revoked`. Read from the table by epoch; the commit only wakes it up.
        """
        with self._allowed("TrustService/Watch"):
            self._authority.check_watch(after)
        return self._watch(after)

    def open_round(self, key: RoundKey, cohort: tuple[CohortMember, ...]) -> Opened:
        with self._allowed("RoundService/OpenRound"):
            return self._authority.rounds.open_round(self._caller.certificate, key, cohort)

    def seal_round(
        self, key: RoundKey, candidates: tuple[Candidate, ...], refused: tuple[tuple[SpiffeId, str], ...]
    ) -> bytes:
        with self._allowed("RoundService/SealRound"):
            return self._authority.rounds.seal_round(self._caller.certificate, key, candidates, refused)

    def close_run(self, run_id: RunId) -> None:
        with self._allowed("RoundService/CloseRun"):
            self._authority.rounds.close_run(self._caller.certificate, run_id)

    def list_rounds(self, run_id: RunId | None = None) -> tuple[RoundRecord, ...]:
        """Rounds in the order they were opened, without evidence: ask `get_round` for that."""
        with self._allowed("RoundService/ListRounds"):
            return self._authority.rounds.list_rounds(run_id)

    def get_round(self, run_id: RunId, step: int) -> RoundRecord:
        with self._allowed("RoundService/GetRound"):
            return self._authority.rounds.get_round(run_id, step)

    def prove_rounds(self, run_id: RunId) -> LogEvidence:
        with self._allowed("RoundService/ProveRounds"):
            return self._authority.rounds.prove_rounds(run_id)

    def certify_signer(self, csr_der: bytes) -> tuple[bytes, ...]:
        with self._allowed("SigningService/CertifySigner"):
            return self._authority.desks.signing.certify(self._caller.certificate, csr_der)

    def countersign(
        self, envelope: bytes, certificate: bytes, *, entry_kind: EntryKind = EntryKind.HASHEDREKORD
    ) -> bytes:
        with self._allowed("SigningService/Countersign"):
            return self._authority.desks.signing.countersign(
                self._caller.certificate, envelope, certificate, entry_kind=entry_kind
            )

    def describe_round(self, run_id: RunId, step: int) -> RoundFacts:
        with self._allowed("LineageService/DescribeRound"):
            return self._authority.desks.lineage.describe_round(self._caller.certificate, run_id, step)

    def find_lineage(self, query: Digest | StepOfRun) -> Iterator[bytes]:
        """Bundles of provenance, newest first. The caller is judged before each that is read."""
        with self._allowed("LineageService/FindLineage"):
            found = self._authority.desks.lineage.find_lineage(query)
        return self._judged(found)

    def blast_radius(self, who: SpiffeId, since: datetime) -> BlastRadius:
        with self._allowed("LineageService/BlastRadius"):
            return self._authority.desks.lineage.blast_radius(who, since)

    def trust_file(self) -> bytes:
        with self._allowed("LineageService/GetTrust"):
            return self._authority.desks.trust.trust_file()

    def list_foreign(self) -> tuple[ForeignDomain, ...]:
        """The foreign domains that this caller may know of; see `FederationDesk.shown_to`."""
        with self._allowed("FederationService/ListForeignDomains"):
            return self._authority.federation.shown_to(self._caller.spiffe_id)

    def is_domain_held(self, domain: TrustDomain) -> bool:
        return self._authority.ledger.is_domain_held(domain)

    def audit(self, query: AuditQuery) -> Iterator[bytes]:
        """Entries of the log as JSON lines with proofs. The caller is judged before each that is read."""
        with self._allowed("LogService/Audit"):
            found = self._authority.desks.audit.lines(query)
        return self._judged(found)

    @contextmanager
    def _allowed(self, method: str) -> Iterator[None]:
        with self._authority.counters.refusals():
            self._check_caller(to_renew=method == "EnrollmentService/Renew")
            check_permission(self._caller.spiffe_id, f"/fltrust.v1.{method}", home=self._authority.ca.domain)
            yield

    def _judged(self, items: Iterator[bytes]) -> Iterator[bytes]:
        while True:
            with self._authority.counters.refusals():
                self._check_caller()
                item = next(items, None)
            if item is None:
                return
            yield item

    def _check_caller(self, *, to_renew: bool = False) -> None:
        certificate = self._caller.certificate
        if self._authority.now() > certificate.not_after:
            raise CertificateRefused(
                f"the certificate of {certificate.spiffe_id} expired at {to_rfc3339(certificate.not_after)}",
                reason=Refusal.CERTIFICATE_EXPIRED,
                hint="renew before it runs out; after that, join again with a new token",
            )
        self._authority.judge(certificate, to_renew=to_renew)

    def _change(
        self,
        target: RevocationTarget,
        act: Callable[[standing.Subject, Work], TrustEvent],
        *,
        check: Callable[[Work], None] = lambda _work: None,
        passing_over: bool = False,
    ) -> tuple[TrustEvent, ...]:
        with self._authority.ledger.writing() as work:
            # Once more, under the lock: an operator who was revoked a moment ago changes nothing.
            work.state.judge(self._caller.certificate)
            check(work)
            subjects = standing.resolve(target, work, domain=self._caller.spiffe_id.domain)
            if passing_over:
                return standing.all_that_apply(subjects, work, act)
            return tuple(act(subject, work) for subject in subjects)

    def _revoke(
        self,
        subject: standing.Subject,
        work: Work,
        *,
        reason: RevocationReason,
        compromised_since: datetime | None,
    ) -> TrustEvent:
        """Revoke; what is new knowledge taints what contains it, in the same transaction."""
        event = standing.revoke(
            subject,
            work,
            actor=self._caller.spiffe_id,
            reason=reason,
            compromised_since=compromised_since,
        )
        if event in work.emitted:
            self._authority.desks.taints.spread(work, event)
        return event

    def _watch(self, after: Epoch) -> Iterator[FeedItem]:
        woken, has_beaten = threading.Event(), False
        unsubscribe = self._authority.subscribe(lambda _epoch: woken.set())
        who, heartbeat = self._caller.spiffe_id, self._authority.settings.heartbeat.total_seconds()
        try:
            while True:
                woken.clear()  # before reading: what is committed from here on wakes us again
                batch = self._authority.events(after, _WATCH_BATCH, reader=who)
                for event in batch:
                    yield event
                    after = event.epoch
                if batch:
                    continue
                with self._authority.counters.refusals():
                    self._check_caller()
                # The first beat comes at once: it tells a watcher that resumes that its view is fresh.
                if not has_beaten or not woken.wait(heartbeat):
                    has_beaten = True
                    head = self._authority.head
                    if head == after:
                        yield FeedHeartbeat(head, self._authority.now())
        finally:
            unsubscribe()


def _check_since(compromised_since: datetime | None, now: datetime) -> None:
    if compromised_since is None:
        return
    if compromised_since.tzinfo is None or compromised_since > now:
        raise Malformed("expected 'compromised since' as an aware time that is not in the future")
