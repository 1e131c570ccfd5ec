"""Enrollment and renewal, carried out: evidence spent, certificate issued, event written, at once."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fltrust.coordinator.ca import CurrentCa
from fltrust.coordinator.certificate_record import check_on_record
from fltrust.coordinator.lapsed import check_still_last
from fltrust.coordinator.ledger import Ledger, Work
from fltrust.coordinator.logbook import token_subject
from fltrust.coordinator.operators import check_granter
from fltrust.coordinator.requests import RequestDesk, check_manual, checked_again
from fltrust.coordinator.sequencer import Sequencer
from fltrust.coordinator.settings import AuthoritySettings
from fltrust.coordinator.workloads import unexpired_with_workload
from fltrust.enrollment.accounts import ACCOUNT_CLAIM, check_account
from fltrust.enrollment.approvals import MANUAL
from fltrust.enrollment.dns_names import check_dns_names
from fltrust.enrollment.lapsed import KIND as LAPSED
from fltrust.enrollment.ports import CertificateRecord, EnrolledRecord, EvidenceChecker
from fltrust.enrollment.registration import (
    CheckedRequest,
    admit_enrollment,
    approve,
    check_request,
    check_standing,
    examine,
    refuse_used_key,
)
from fltrust.enrollment.requests import Request
from fltrust.enrollment.token import hash_of
from fltrust.enrollment.types import (
    Approval,
    EnrollRequest,
    Evidence,
    Issued,
    JoinTokenEvidence,
    ManualEvidence,
    Pending,
)
from fltrust.errors import (
    ApprovalPending,
    Conflict,
    FltrustError,
    LimitExceeded,
    Refused,
    RequestDenied,
)
from fltrust.identity import KeyId, Role, Serial, SpiffeId
from fltrust.keys.openssh import spki_der
from fltrust.pki.csr import parse_request
from fltrust.pki.issuing import Draft
from fltrust.pki.leaf_keys import LeafKey
from fltrust.pki.pointers import issuer_of
from fltrust.pki.types import VerifiedCertificate
from fltrust.pki.workloads import workload_of
from fltrust.revocation.events import EventKind, RevocationReason
from fltrust.revocation.state import Standing
from fltrust.tlog.entries import LogKind

MAX_LIVE_CERTIFICATES = 2_048
"""Certificates of one identity that have not expired. A revocation names them all, in one event that every
watcher must be able to read; an agent that renews in time has two."""

MAX_REFUSALS = 16
"""Logged refusals of one join token: whoever holds a spent one cannot fill the log with it."""


RENEWAL_MESSAGE = "renewal-message"
"""The kind under which a signed message that renewed with the same key is remembered."""


@dataclass(frozen=True, slots=True)
class _Collected:
    """A certificate that a request is owed, new or once more."""

    request_id: str
    issued: Issued


class Enroller:
    """Issues certificates to enrolled identities, and to nobody else."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        sequencer: Sequencer,
        ca: CurrentCa,
        settings: AuthoritySettings,
        checkers: Sequence[EvidenceChecker],
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._ledger = ledger
        self._sequencer = sequencer
        self._ca = ca
        self._settings = settings
        self._checkers = checkers
        self.on_renewal: Callable[[Work], None] | None = None
        """Told of every renewal, in its transaction: what is written now and then rides along."""
        self.requests = RequestDesk(
            ledger=ledger, policy=settings.approvals, check=self.check, entropy=entropy
        )

    def submit(self, request: EnrollRequest) -> Issued | Pending:
        """Take a request in: issue at once where the policy asks for no approval, else keep it for operators.

        The one way in, for every protocol. Whoever is told `Pending` asks again with `collect`.
        What is refused leaves the evidence unspent; a refusal with a join token that is known here is logged,
        `MAX_REFUSALS` times for each token.

        1. The request's signatures are checked before the store is asked anything (`check_request`), and
           so is evidence that needs no record (`examine`).
        2. A request that is there already, for this key with this evidence, is resumed.
        3. The evidence is spent and earns a name and a role; where there is none, operators decide those.
        4. `admit_enrollment` decides.
        5. Where no operator is needed, the certificate is issued. Everything is written in one transaction.
        """
        # 1.
        checked = check_request(request)
        is_manual = isinstance(request.evidence, ManualEvidence)
        try:
            if is_manual:
                check_manual(self.requests.policy)
                evidence: Evidence = request.evidence
            else:
                evidence = examine(request, checkers=self._checkers, now=self._ledger.now())
            with self._ledger.writing() as work:
                # 2.
                known = self.requests.find(request, checked, work)
                if known is not None:
                    outcome = self._resume(known, work)
                elif isinstance(evidence, ManualEvidence):
                    claims = {"note": evidence.note} if evidence.note else {}
                    outcome = self.requests.keep(request, checked, None, work, evidence=MANUAL, claims=claims)
                else:
                    # 3.
                    approval, kind = approve(
                        evidence,
                        checkers=self._checkers,
                        tokens=work.tx.tokens,
                        certificates=work.tx.certificates,
                        enrollments=work.tx.enrollments,
                        now=work.now,
                    )
                    if approval.account is None:
                        check_granter(approval.granted_by, work)
                    # 4. and 5.
                    if self.requests.policy.needed(approval, evidence=kind, protocol=request.protocol):
                        self.check(approval, checked, work, kind)
                        outcome = self.requests.keep(request, checked, approval, work, evidence=kind)
                    else:
                        outcome = self.admit(approval, checked, work, evidence=kind)
        except (Refused, Conflict) as refusal:
            self._log_refusal(request, refusal.reason)
            raise
        return self._hand_over(outcome)

    def collect(self, request_id: str, csr_der: bytes) -> Issued | Pending:
        """What became of a pending request, for whoever holds its key: a CSR of the same key again.

        One that was approved is issued now; one that was issued is handed out once more, as long as its
        certificate lasts. `RequestDenied` once it was denied or expired; `NotFound` for an id or a key that
        is not known.
        """
        public_key = parse_request(csr_der)
        checked = CheckedRequest(public_key, KeyId.of_spki(spki_der(public_key)), None)
        with self._ledger.writing() as work:
            known = self.requests.collected(request_id, checked, work)
            outcome = self._resume(known, work)
        return self._hand_over(outcome)

    def _resume(self, known: Request, work: Work) -> Issued | Pending | RequestDenied | _Collected:
        found = self.requests.resume(known, work)
        if not isinstance(found, Request):
            return found
        if found.serial is None and found.approval is not None:
            self.check(found.approval, checked_again(found), work, found.evidence)
            issued = self.admit(found.approval, checked_again(found), work, evidence=found.evidence)
            self.requests.issued(found, issued, work)
            return _Collected(found.request_id, issued)
        return _Collected(found.request_id, self._issued_before(found, work))

    def _issued_before(self, found: Request, work: Work) -> Issued:
        record = None if found.serial is None else work.tx.certificates.by_serial(found.serial)
        if record is None or record.not_after <= work.now:
            raise RequestDenied(
                "the certificate of this request has run out",
                reason="request-expired",
                hint="ask anew, with a new key",
            )
        return Issued(record.spiffe_id, (record.der, *found.issuers), self._ca.bundle)

    def _hand_over(self, outcome: Issued | Pending | RequestDenied | _Collected) -> Issued | Pending:
        """After the commit: a refusal is raised, and what is handed over is written down as delivered."""
        if isinstance(outcome, RequestDenied):
            raise outcome
        if not isinstance(outcome, _Collected):
            return outcome
        request_id = outcome.request_id
        with suppress(FltrustError):  # if that fails, it is delivered all the same
            self._sequencer.run(lambda work: self.requests.deliver(request_id, work))
        return outcome.issued

    def check(self, approval: Approval, checked: CheckedRequest, work: Work, evidence: str) -> None:
        """Raise where an approved request could not be issued as things stand."""
        if approval.account is not None:
            self._entitled(approval, checked, work, evidence=evidence)
        else:
            who = self._admissible(approval, checked, work)
            if evidence == LAPSED:
                check_still_last(who, approval, work.tx.certificates)

    def enroll(self, request: EnrollRequest) -> Issued:
        """As `submit`, for a caller who cannot wait: `ApprovalPending` where operators have to decide."""
        outcome = self.submit(request)
        if isinstance(outcome, Pending):
            raise pending_error(outcome)
        return outcome

    def _admissible(self, approval: Approval, checked: CheckedRequest, work: Work) -> SpiffeId:
        """The identity, if an approval may enroll it as things stand; see `admit_enrollment`."""
        who = admit_enrollment(
            approval,
            checked,
            domain=self._settings.domain,
            standing=work.state.identities.get(SpiffeId(self._settings.domain, approval.role, approval.name)),
            enrollments=work.tx.enrollments,
            certificates=work.tx.certificates,
        )
        check_dns_names(who.role, approval.dns_names, profiles=self._settings.profiles)
        return who

    def _log_refusal(self, request: EnrollRequest, reason: str) -> None:
        """Write down that a known token was shown in vain. If that fails, the refusal stands all the same."""
        if not isinstance(request.evidence, JoinTokenEvidence):
            return
        secret_hash = hash_of(request.evidence.secret)

        def write(work: Work) -> None:
            token = work.tx.tokens.find(secret_hash, now=work.now)
            if token is None:
                return
            subject = token_subject(token.token_id)
            known = work.tx.tlog.find(
                subject=subject, kinds=(LogKind.ENROLLMENT_REFUSED,), limit=MAX_REFUSALS
            )
            if len(known) < MAX_REFUSALS:
                work.log(work.book.refusal(token, reason, at=work.now))

        with suppress(FltrustError):
            self._sequencer.run(write)

    def admit(self, approval: Approval, checked: CheckedRequest, work: Work, *, evidence: str) -> Issued:
        """Enroll under an approval that is already given, inside the caller's transaction.

        One for an account issues the next certificate of a name that was opened for it (`open_for_account`).
        """
        if approval.account is not None:
            who = self._entitled(approval, checked, work, evidence=evidence)
            return self._issue(who, checked.public_key, work, checked.csr_der, dns_names=approval.dns_names)
        name = SpiffeId(self._settings.domain, approval.role, approval.name)
        standing = work.state.identities.get(name)
        who = self._admissible(approval, checked, work)
        if standing is not None and standing.standing is Standing.ACTIVE:
            self._supersede(who, work, actor=approval.granted_by)
        issued = self._issue(who, checked.public_key, work, checked.csr_der, dns_names=approval.dns_names)
        self._record(who, approval, work, evidence=evidence, node_key=checked.node_key)
        return issued

    def open_for_account(self, approval: Approval, account: str, work: Work, *, evidence: str) -> SpiffeId:
        """Enroll a name that gets its certificates later, for this account alone.

        Inside the caller's transaction, which spent what was shown for it. Refusals as `submit`'s. A name
        that is taken over leaves its certificates behind, barred.
        """
        who = SpiffeId(self._settings.domain, approval.role, approval.name)
        standing = work.state.identities.get(who)
        if standing is not None:
            check_standing(who, standing, replace=approval.replace)
            if standing.standing is Standing.ACTIVE:
                self._supersede(who, work, actor=approval.granted_by)
        check_dns_names(who.role, approval.dns_names, profiles=self._settings.profiles)
        claims = {**approval.claims, ACCOUNT_CLAIM: account}
        self._record(who, replace(approval, claims=claims), work, evidence=evidence, node_key=None)
        return who

    def _record(
        self, who: SpiffeId, approval: Approval, work: Work, *, evidence: str, node_key: bytes | None
    ) -> None:
        """Write down who is enrolled, and take the epoch that says so."""
        work.tx.enrollments.put(
            EnrolledRecord(
                who,
                work.now,
                approval.granted_by,
                evidence,
                node_key,
                approval.dns_names,
                approval.claims,
            )
        )
        work.emit(EventKind.ENROLLED, actor=approval.granted_by, subject=who, node_key=node_key)

    def _entitled(
        self, approval: Approval, checked: CheckedRequest, work: Work, *, evidence: str
    ) -> SpiffeId:
        """The identity, if its account may have its next certificate; see `check_account`."""
        who = SpiffeId(self._settings.domain, approval.role, approval.name)
        check_account(
            who,
            approval,
            evidence=evidence,
            standing=work.state.identities.get(who),
            record=work.tx.enrollments.get(who),
        )
        check_dns_names(who.role, approval.dns_names, profiles=self._settings.profiles)
        refuse_used_key(checked.key_id, who, certificates=work.tx.certificates)
        _refuse_too_many(who, work)
        return who

    def renew(
        self, certificate: VerifiedCertificate, csr_der: bytes, *, message: bytes | None = None
    ) -> Issued:
        """Issue the caller's next certificate, for a key that was never certified, or the one it calls with.

        `message` is what was signed to ask for it, where whoever saw it pass could send it again: for the
        same key it is good once, for good (`Conflict`, ``replayed``). A new key is certified once anyhow.

        Judged under the head's lock, so that no certificate is issued past a revocation. Refused
        (``too-many-certificates``) while `MAX_LIVE_CERTIFICATES` have not expired. Renewals at the same
        time share their commits.
        """
        return self._issue_next(certificate.spiffe_id, csr_der, asked_by=certificate, message=message)

    def certify_workload(self, agent: VerifiedCertificate, csr_der: bytes) -> Issued:
        """Issue a certificate to the workload beside an agent, named after it (`workload_of`); as `renew`.

        It stands as the agent does: what revokes, holds or replaces the agent names its certificates too.
        """
        return self._issue_next(workload_of(agent.spiffe_id), csr_der, asked_by=agent)

    def _issue_next(
        self,
        who: SpiffeId,
        csr_der: bytes,
        *,
        asked_by: VerifiedCertificate,
        message: bytes | None = None,
    ) -> Issued:
        public_key = parse_request(csr_der)
        key = KeyId.of_spki(spki_der(public_key))

        def issue(work: Work) -> Issued:
            # One's own next certificate may be asked for under a CA that was revoked since: see `judge`.
            work.state.judge(asked_by, is_on_record=asked_by.spiffe_id == who)
            check_on_record(asked_by, work.tx)
            refuse_used_key(key, who, certificates=work.tx.certificates, kept=asked_by.key_id)
            if message is not None and key == asked_by.key_id:
                _refuse_replayed(message, work)
            _refuse_too_many(who, work)
            issued = self._issue(who, public_key, work, csr_der)
            if self.on_renewal is not None:
                self.on_renewal(work)
            return issued

        return self._sequencer.run(issue)

    def issue_next(self, who: SpiffeId, checked: CheckedRequest, work: Work) -> Issued:
        """Issue the next certificate of an identity that stands well, for a new key that it vouches for.

        Inside the caller's transaction, which has checked both.
        """
        refuse_used_key(checked.key_id, who, certificates=work.tx.certificates)
        _refuse_too_many(who, work)
        return self._issue(who, checked.public_key, work, checked.csr_der)

    def resume(self, known: Request, work: Work) -> Issued | Pending | RequestDenied:
        """Where a request stands for who sends it again, inside the caller's transaction; issued now if it
        was approved. A refusal is returned, so that what led to it can be written down."""
        outcome = self._resume(known, work)
        return outcome.issued if isinstance(outcome, _Collected) else outcome

    def _supersede(self, who: SpiffeId, work: Work, *, actor: SpiffeId | None) -> None:
        """Bar the certificates that a replaced enrollment leaves behind, and an operator's tokens."""
        if who.role is Role.OPERATOR:
            work.tx.tokens.cancel_all_by(who, now=work.now)
        records = unexpired_with_workload(who, work.tx.certificates, now=work.now)
        if not records:
            return
        work.emit(
            EventKind.REVOKED,
            actor=actor,
            subject=who,
            serials=tuple(record.serial for record in records),
            reason=RevocationReason.SUPERSEDED,
        )

    def _issue(
        self,
        who: SpiffeId,
        public_key: LeafKey,
        work: Work,
        csr_der: bytes | None,
        *,
        dns_names: Sequence[str] | None = None,
    ) -> Issued:
        # Names from the record, the key from the request.
        if dns_names is None:
            dns_names = self._dns_names_of(who, work)
        ca = self._ca.now
        work.check_issuer(ca.svids.certificate)
        leaf = ca.svids.redeem(self._draft(who, public_key, work.now, csr_der, dns_names))
        work.add_certificate(record_of(leaf, who))
        issuing = ca.svids.certificate
        chain = (leaf, issuing, *ca.above(issuing))
        return Issued(who, tuple(c.public_bytes(Encoding.DER) for c in chain), ca.bundle)

    def sign(
        self, who: SpiffeId, checked: CheckedRequest, work: Work, *, dns_names: Sequence[str]
    ) -> x509.Certificate:
        """Make a certificate that the caller has decided on and records, in the transaction it is in."""
        issuer = self._ca.now.svids
        work.check_issuer(issuer.certificate)
        return issuer.redeem(self._draft(who, checked.public_key, work.now, checked.csr_der, dns_names))

    def _draft(
        self,
        who: SpiffeId,
        public_key: LeafKey,
        now: datetime,
        csr_der: bytes | None,
        dns_names: Sequence[str],
    ) -> Draft:
        lifetime = self._settings.lifetime_of(who.role)
        return Draft.of(who, public_key, now=now, lifetime=lifetime, dns_names=dns_names, csr_der=csr_der)

    def _dns_names_of(self, who: SpiffeId, work: Work) -> Sequence[str]:
        if not self._settings.profiles.leaves[who.role].max_dns_names:
            return ()
        record = work.tx.enrollments.get(who)
        return () if record is None else record.dns_names


def pending_error(pending: Pending) -> ApprovalPending:
    """The error that says that operators have yet to decide."""
    return ApprovalPending(
        "the request was taken and waits for operators to approve it",
        hint="ask again later, with the same key",
        request_id=pending.request_id,
        retry_after=pending.retry_after.total_seconds(),
    )


def _refuse_replayed(message: bytes, work: Work) -> None:
    if not work.tx.tokens.spend_once(RENEWAL_MESSAGE, sha256(message).digest(), now=work.now):
        raise Conflict(
            "expected a message that was made for this renewal, this one was used before",
            reason="replayed",
            hint="make a new message, with a new nonce",
        )


def _refuse_too_many(who: SpiffeId, work: Work) -> None:
    if work.tx.certificates.count_unexpired_of(who, now=work.now) >= MAX_LIVE_CERTIFICATES:
        raise LimitExceeded(
            f"expected {who} to have fewer than {MAX_LIVE_CERTIFICATES} certificates in force",
            reason="too-many-certificates",
            hint="use the last one until older ones expire; if it was not you who renewed, tell an "
            "operator: your key is in other hands",
        )


def record_of(leaf: x509.Certificate, who: SpiffeId) -> CertificateRecord:
    """What is kept of a certificate."""
    spki = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return CertificateRecord(
        serial=Serial(leaf.serial_number),
        spiffe_id=who,
        key_id=KeyId.of_spki(spki),
        not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc,
        der=leaf.public_bytes(Encoding.DER),
        issuer=issuer_of(leaf),
    )
