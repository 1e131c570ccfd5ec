"""Enrollment and renewal, carried out: evidence spent, certificate issued, event written, at once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fltrust.coordinator.ca import CurrentCa
from fltrust.coordinator.certificate_record import check_on_record
from fltrust.coordinator.ledger import Ledger, Work
from fltrust.coordinator.logbook import token_subject
from fltrust.coordinator.sequencer import Sequencer
from fltrust.coordinator.settings import AuthoritySettings
from fltrust.coordinator.workloads import unexpired_with_workload
from fltrust.enrollment.ports import CertificateRecord, EnrolledRecord, EvidenceChecker
from fltrust.enrollment.registration import (
    CheckedRequest,
    admit_enrollment,
    approve,
    check_request,
    examine,
    refuse_used_key,
)
from fltrust.enrollment.token import hash_of
from fltrust.enrollment.types import Approval, EnrollRequest, Issued, JoinTokenEvidence, Pending
from fltrust.errors import Conflict, FltrustError, LimitExceeded, NotFound, Refused
from fltrust.identity import KeyId, Serial, SpiffeId
from fltrust.keys.openssh import spki_der
from fltrust.pki.csr import parse_csr
from fltrust.pki.issuing import Draft
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
    ) -> None:
        self._ledger = ledger
        self._sequencer = sequencer
        self._ca = ca
        self._settings = settings
        self._checkers = checkers

    def submit(self, request: EnrollRequest) -> Issued | Pending:
        """Take a request in: issue at once where the policy asks for no approval, else keep it for operators.

        The one way in, for every protocol. Whoever is told `Pending` asks again with `collect`.
        """
        return self.enroll(request)

    def collect(self, request_id: str, csr_der: bytes) -> Issued | Pending:
        """What became of a pending request, for whoever holds its key (the same `csr_der` again).

        `RequestDenied` once it was denied or expired; `NotFound` for an id or a key that is not known.
        """
        raise NotFound(f"no request {request_id[:40]!r} for this key ({len(csr_der)} bytes) is known here")

    def enroll(self, request: EnrollRequest) -> Issued:
        """Enroll by evidence. What is refused leaves the evidence unspent.

        A refusal with a join token that is known here is logged, `MAX_REFUSALS` times for each token.

        1. The request's signatures are checked before the store is asked anything (`check_request`), and
           so is evidence that needs no record (`examine`).
        2. The evidence is spent and earns a name and a role.
        3. `admit_enrollment` decides.
        4. The certificate is issued, and everything is written in one transaction.
        """
        # 1.
        checked = check_request(request)
        try:
            evidence = examine(request, checkers=self._checkers, now=self._ledger.now())
            with self._ledger.writing() as work:
                # 2.
                approval, kind = approve(
                    evidence, checkers=self._checkers, tokens=work.tx.tokens, now=work.now
                )
                # 3. and 4.
                return self.admit(approval, checked, work, evidence=kind)
        except (Refused, Conflict) as refusal:
            self._log_refusal(request, refusal.reason)
            raise

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
        """Enroll under an approval that is already given, inside the caller's transaction."""
        name = SpiffeId(self._settings.domain, approval.role, approval.name)
        standing = work.state.identities.get(name)
        who = admit_enrollment(
            approval,
            checked,
            domain=self._settings.domain,
            standing=standing,
            enrollments=work.tx.enrollments,
            certificates=work.tx.certificates,
        )
        if standing is not None and standing.standing is Standing.ACTIVE:
            self._supersede(who, work, actor=approval.granted_by)
        issued = self._issue(who, checked.public_key, work)
        work.tx.enrollments.put(
            EnrolledRecord(who, work.now, approval.granted_by, evidence, checked.node_key)
        )
        work.emit(
            EventKind.ENROLLED,
            actor=approval.granted_by,
            subject=who,
            node_key=checked.node_key,
        )
        return issued

    def renew(self, certificate: VerifiedCertificate, csr_der: bytes) -> Issued:
        """Issue the caller's next certificate, for a key that was never certified.

        Judged under the head's lock, so that no certificate is issued past a revocation. Refused
        (``too-many-certificates``) while `MAX_LIVE_CERTIFICATES` have not expired. Renewals at the same
        time share their commits.
        """
        return self._issue_next(certificate.spiffe_id, csr_der, asked_by=certificate)

    def certify_workload(self, agent: VerifiedCertificate, csr_der: bytes) -> Issued:
        """Issue a certificate to the workload beside an agent, named after it (`workload_of`); as `renew`.

        It stands as the agent does: what revokes, holds or replaces the agent names its certificates too.
        """
        return self._issue_next(workload_of(agent.spiffe_id), csr_der, asked_by=agent)

    def _issue_next(self, who: SpiffeId, csr_der: bytes, *, asked_by: VerifiedCertificate) -> Issued:
        public_key = parse_csr(csr_der)
        key = KeyId.of_spki(spki_der(public_key))

        def issue(work: Work) -> Issued:
            # One's own next certificate may be asked for under a CA that was revoked since: see `judge`.
            work.state.judge(asked_by, is_on_record=asked_by.spiffe_id == who)
            check_on_record(asked_by, work.tx)
            refuse_used_key(key, who, certificates=work.tx.certificates)
            if work.tx.certificates.count_unexpired_of(who, now=work.now) >= MAX_LIVE_CERTIFICATES:
                raise LimitExceeded(
                    f"expected {who} to have fewer than {MAX_LIVE_CERTIFICATES} certificates in force",
                    reason="too-many-certificates",
                    hint="use the last one until older ones expire; if it was not you who renewed, tell an "
                    "operator: your key is in other hands",
                )
            return self._issue(who, public_key, work)

        return self._sequencer.run(issue)

    def _supersede(self, who: SpiffeId, work: Work, *, actor: SpiffeId | None) -> None:
        """Bar the certificates that a replaced enrollment leaves behind."""
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

    def _issue(self, who: SpiffeId, public_key: EllipticCurvePublicKey, work: Work) -> Issued:
        # Names from the record, the key from the request.
        draft = Draft.of(who, public_key, now=work.now, lifetime=self._settings.lifetime_of(who.role))
        ca = self._ca.now
        leaf = ca.issuer.redeem(draft)
        work.add_certificate(record_of(leaf, who))
        chain = (leaf.public_bytes(Encoding.DER), ca.issuer.certificate.public_bytes(Encoding.DER))
        return Issued(who, chain, ca.bundle)


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
