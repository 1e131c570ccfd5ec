"""The coordinator without its network: one trust domain's enrollment, standing and rounds."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.clock import Clock
from fltrust.coordinator.acme.evidence import AcmeChecker
from fltrust.coordinator.bulk import BulkOffice
from fltrust.coordinator.ca import CurrentCa
from fltrust.coordinator.certificate_record import CertificateRecords
from fltrust.coordinator.cmp.evidence import CmpChecker
from fltrust.coordinator.counters import Counters
from fltrust.coordinator.credentials import CredentialOffice
from fltrust.coordinator.cross_certification import CrossCertify
from fltrust.coordinator.desks import open_desks
from fltrust.coordinator.enroller import Enroller, record_of
from fltrust.coordinator.federation.desk import FederationDesk
from fltrust.coordinator.federation.kinds import AdmitForeign, EndFederation, Federate
from fltrust.coordinator.key_usage import KeyUsageDesk
from fltrust.coordinator.lapsed import LapsedChecker
from fltrust.coordinator.ledger import Ledger
from fltrust.coordinator.logbook import Logbook, certificate_subject
from fltrust.coordinator.notary import NotaryKeys
from fltrust.coordinator.opening import open_log
from fltrust.coordinator.operations import Operations
from fltrust.coordinator.ports import Store
from fltrust.coordinator.presence import Presence
from fltrust.coordinator.public_names import PublicNaming
from fltrust.coordinator.reading import as_read_by
from fltrust.coordinator.rounds import RoundDesk, SigningIdentity
from fltrust.coordinator.sensitive import BulkRevoke, ReleaseHold
from fltrust.coordinator.sequencer import Sequencer
from fltrust.coordinator.session import Caller, Session
from fltrust.coordinator.settings import AuthoritySettings
from fltrust.coordinator.status.office import PublishedElsewhere, StatusOffice
from fltrust.coordinator.succession import CaHome, Succession
from fltrust.coordinator.tokens import TokenOffice
from fltrust.enrollment.mackeys import MASTER_BYTES, MacKeys
from fltrust.enrollment.ports import CertificateRecord, EnrolledRecord, EvidenceChecker
from fltrust.enrollment.registration import CheckedRequest, JoinTokenChecker
from fltrust.enrollment.tpm import TpmChallenge, TpmChecker, TpmIntroduction
from fltrust.enrollment.types import Approval, Enrollment, EnrollRequest, Issued, Pending
from fltrust.errors import Conflict, EvidenceRefused, NotFound
from fltrust.identity import Epoch, Name, Role, SpiffeId
from fltrust.keys.file import FileSigner, generate
from fltrust.keys.signer import Signer
from fltrust.pki.csr import create_csr
from fltrust.pki.types import TrustBundle, VerifiedCertificate
from fltrust.pki.verify import verify_certificate
from fltrust.revocation.events import TrustEvent
from fltrust.revocation.state import IdentityState
from fltrust.rounds.logged import log_name
from fltrust.tlog.note import NoteKey

__all__ = ["Authority", "AuthoritySettings", "Caller", "Session"]

MAX_EVENTS = 1_000
"""Events in one answer of `Authority.events`."""


class Authority:
    """Decides everything that the coordinator decides; safe to call from many threads.

    `signer` and `chain` are the coordinator's own identity (`fltrust.coordinator.identity`), which signs
    receipts; `use_identity` puts a renewed one in its place. The `notary` keeps the log's key, `names` says
    under which names participants stand in the log (left out: their SPIFFE IDs); both are for good, see
    `open_log`. `mac_keys` are shared with clients of other protocols (left out: for this object's life).
    `checkers` judge other evidence than join tokens. `published` is what status is published of beside the CA
    in force: issuing CAs that retired, and the roots' own CRLs. `home` is where the CA is kept; without it,
    it cannot be replaced while this object lives.
    """

    def __init__(
        self,
        *,
        store: Store,
        ca: CurrentCa,
        signer: Signer,
        chain: Sequence[bytes],
        notary: NotaryKeys,
        clock: Clock,
        settings: AuthoritySettings,
        names: PublicNaming | None = None,
        mac_keys: MacKeys | None = None,
        checkers: Sequence[EvidenceChecker] = (),
        published: PublishedElsewhere | None = None,
        home: CaHome | None = None,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        if ca.domain != settings.domain:
            raise Conflict(f"expected a CA of {settings.domain}, got one of {ca.domain}")
        store.claim(settings.domain)
        self.ca = ca
        self._records = CertificateRecords()
        self._clock = clock
        self.settings = settings
        self.mac_keys = mac_keys or MacKeys(entropy(MASTER_BYTES))
        self.counters = Counters()
        self.log_key = NoteKey(log_name(settings.domain), notary.note)
        self.ledger = Ledger(store, clock, Logbook(settings.domain, names or PublicNaming()))
        with self.ledger.writing() as work:
            open_log(work, self.log_key)
        self.federation: FederationDesk = FederationDesk(ledger=self.ledger, ca=ca)
        self.status = StatusOffice(
            ledger=self.ledger,
            ca=ca,
            settings=settings.status,
            elsewhere=published or PublishedElsewhere(),
            is_service=notary.is_timestamping,
        )
        self.sequencer = Sequencer(self.ledger)
        self.enroller = Enroller(
            ledger=self.ledger,
            sequencer=self.sequencer,
            ca=ca,
            settings=settings,
            checkers=(
                JoinTokenChecker(),
                AcmeChecker(),
                CmpChecker(),
                LapsedChecker(ledger=self.ledger, ca=ca, grace=settings.lapsed_grace),
                *checkers,
            ),
            entropy=entropy,
        )
        self._tpm = next((checker for checker in checkers if isinstance(checker, TpmChecker)), None)
        self.operations = Operations(
            ledger=self.ledger, ca=ca, domain=settings.domain, policy=settings.approvals
        )
        self.credentials = CredentialOffice(
            ledger=self.ledger, settings=settings, mac_keys=self.mac_keys, entropy=entropy
        )
        for kind in (
            Federate(self.federation, settings.domain),
            AdmitForeign(self.federation),
            EndFederation(self.federation),
        ):
            self.operations.register(kind)
        self.tokens = TokenOffice(ledger=self.ledger, ca=ca, settings=settings, entropy=entropy)
        self.rounds = RoundDesk(
            ledger=self.ledger,
            domain=settings.domain,
            records=self._records,
            trust=self.federation.trust,
            identity=SigningIdentity(signer, tuple(chain)),
            log_key=self.log_key,
            counters=self.counters,
        )
        self.notary = notary
        self.key_usage = KeyUsageDesk(self.ledger, lambda: (ca.issuer.counter, *notary.counters))
        self.desks = open_desks(
            ledger=self.ledger,
            sequencer=self.sequencer,
            ca=ca,
            notary=notary,
            names=names or PublicNaming(),
            log_key=self.log_key,
            counters=self.counters,
        )
        if home is not None:
            succession = Succession(ca, home, self.desks.taints)
            for executor in succession.executors():
                self.operations.register(executor)
            with self.ledger.reading() as tx:
                succession.settle(tx)
        self.bulk = BulkOffice(
            ledger=self.ledger,
            ca=ca,
            domain=settings.domain,
            enroller=self.enroller,
            tokens=self.tokens,
            profiles=settings.profiles,
        )
        self.presence = Presence()
        self.enroller.on_renewal = lambda work: self.presence.write(work, only_if_due=True)
        self.operations.register(ReleaseHold(settings.domain))
        self.operations.register(BulkRevoke(settings.domain, self.desks.taints))
        self.operations.register(CrossCertify(ca))
        self.use_identity(signer, chain)
        for issued in notary.tsa_history:
            self._log_tsa(issued[0])
        notary.on_issued = self._log_tsa

    def bundle(self) -> TrustBundle:
        """The roots of the trust domain."""
        return self.ca.bundle

    def enroll(self, request: EnrollRequest) -> Issued:
        """Spend the evidence and issue; see `Enroller.enroll`. What is refused leaves it unspent."""
        with self.counters.refusals():
            return self.enroller.enroll(request)

    def submit(self, request: EnrollRequest) -> Issued | Pending:
        """Take a request in, from any protocol; see `Enroller.submit`."""
        with self.counters.refusals():
            return self.enroller.submit(request)

    def collect(self, request_id: str, csr_der: bytes) -> Issued | Pending:
        """What became of a request; see `Enroller.collect`."""
        with self.counters.refusals():
            return self.enroller.collect(request_id, csr_der)

    def challenge_tpm(self, introduction: TpmIntroduction) -> TpmChallenge:
        """Answer the first message of a site with a TPM (`fltrust.enrollment.tpm`), where TPMs are taken."""
        with self.counters.refusals():
            if self._tpm is None:
                raise EvidenceRefused(
                    "expected other evidence: this coordinator takes none of TPMs",
                    reason="tpm-unknown",
                    hint="[evidence.tpm] in coordinator.toml names manufacturers and devices",
                )
            return self._tpm.challenge(introduction, now=self._clock.now())

    def session(self, caller: Caller) -> Session:
        """What this caller may do. Cheap; every call on it is decided afresh."""
        return Session(self, caller)

    def judge(self, certificate: VerifiedCertificate, *, to_renew: bool = False) -> None:
        """Raise unless this certificate was issued here and its holder stands well at the present epoch.

        `to_renew`: the certificate of a CA that was revoked since is good enough to ask for one of
        the CA in force, since it is on record.
        """
        if certificate.spiffe_id.domain != self.ca.domain:
            # Issued by another coordinator: on record there. Who of that domain stands well, our feed says.
            self.federation.judge(certificate)
            self.ledger.judge(certificate)
            return
        self.ledger.judge(certificate, is_on_record=to_renew)
        if not self._records.knows(certificate):
            with self.ledger.reading() as tx:
                self._records.check(certificate, tx)
        self.presence.note(certificate.spiffe_id, self.now())

    def events(self, after: Epoch, limit: int, *, reader: SpiffeId | None) -> tuple[TrustEvent, ...]:
        """At most `limit` (and 1,000) events after an epoch, from the table, as `reader` may read them.

        A participant reads what is about itself, aggregators, operators and runs; an event about
        another participant becomes `REDACTED`, of which only epoch and time remain. Aggregators,
        operators and None (this process) read everything. `Conflict` for an epoch that is to come.
        """
        self.check_watch(after)
        with self.ledger.reading() as tx:
            found = tx.events.read(after, limit=max(1, min(limit, MAX_EVENTS)))
        if reader is None:
            return found
        return tuple(self.as_read_by(reader, event) for event in found)

    def as_read_by(self, reader: SpiffeId, event: TrustEvent) -> TrustEvent:
        """The event as `reader` may read it; see `fltrust.coordinator.reading`."""
        home = self.ca.domain
        lent = () if reader.domain == home else self.federation.lent_to(reader.domain)
        return as_read_by(reader, event, home=home, lent=lent)

    def check_watch(self, after: Epoch) -> None:
        """Return only if the feed has reached `after`; a watcher that is ahead followed another feed."""
        head = self.head
        if after > head:
            raise Conflict(
                f"expected an epoch up to {head}, got a watch after {after}",
                reason="epoch-ahead",
                hint="was the coordinator's database restored from a backup? watch anew, from 0",
            )

    @property
    def head(self) -> Epoch:
        """The present epoch."""
        return self.ledger.head

    def now(self) -> datetime:
        return self._clock.now()

    def subscribe(self, callback: Callable[[Epoch], None]) -> Callable[[], None]:
        """Call `callback(epoch)` after every commit that took an epoch, in the committing thread; be quick.

        Returns the way to end it. A callback is a wake-up, not the feed: read `events`.
        """
        return self.ledger.subscribe(callback)

    def enrollments(self) -> tuple[Enrollment, ...]:
        """Everybody who is or was enrolled, in order of enrollment."""
        with self.ledger.reading() as tx:
            records, newest = tx.enrollments.all(), tx.certificates.newest()
        standing = self.ledger.identities()
        return tuple(
            _enrollment(record, newest.get(record.spiffe_id), standing[record.spiffe_id])
            for record in records
            if record.spiffe_id in standing
        )

    def enrollment(self, who: SpiffeId) -> Enrollment:
        """What the record says of one identity; `NotFound` if it was never enrolled."""
        with self.ledger.reading() as tx:
            record, newest = tx.enrollments.get(who), tx.certificates.newest_of(who)
        standing = self.ledger.identities().get(who)
        if record is None or standing is None:
            raise NotFound(f"{who} was never enrolled", hint="list who is: fltrust participants list")
        return _enrollment(record, newest, standing)

    def bootstrap_operator(self, name: Name, *, replace: bool = False) -> tuple[FileSigner, Issued]:
        """Enroll an operator from this machine, without evidence; returns its new key and certificate.

        For the first operator, and for when all their certificates ran out (`replace`): whoever can call
        this holds the CA and the database anyway. A name on hold stays refused.
        """
        signer = generate()
        checked = CheckedRequest(signer.public_key, signer.key_id, None, create_csr(signer))
        approval = Approval(Role.OPERATOR, name, replace)
        with self.counters.refusals(), self.ledger.writing() as work:
            return signer, self.enroller.admit(approval, checked, work, evidence="bootstrap")

    def use_identity(self, signer: Signer, chain: Sequence[bytes]) -> None:
        """Sign receipts with this identity from now on; its certificate is recorded like every other."""
        certificate = verify_certificate(
            tuple(chain), bundle=self.ca.bundle, at=self._clock.now(), expect_role=Role.COORDINATOR
        )
        if certificate.key_id != signer.key_id:
            raise Conflict("expected the certificate of the coordinator's key, got another key's")
        with self.ledger.writing() as work:
            if work.tx.certificates.by_serial(certificate.serial) is None:
                work.add_certificate(record_of(certificate.leaf, certificate.spiffe_id))
        self.rounds.identity = SigningIdentity(signer, tuple(chain))

    def _log_tsa(self, certificate: x509.Certificate) -> None:
        """Log a certificate of the timestamp authority, unless it is there."""
        der = certificate.public_bytes(Encoding.DER)
        with self.ledger.writing() as work:
            if not work.tx.tlog.find(subject=certificate_subject(der), limit=1):
                work.log(work.book.tsa_certificate(der, at=work.now))


def _enrollment(
    record: EnrolledRecord, newest: CertificateRecord | None, standing: IdentityState
) -> Enrollment:
    return Enrollment(
        spiffe_id=record.spiffe_id,
        enrolled_at=record.enrolled_at,
        enrolled_by=record.enrolled_by,
        evidence=record.evidence,
        node_key=record.node_key,
        standing=standing.standing,
        since_epoch=int(standing.since),
        certificate_serial=None if newest is None else newest.serial.hex,
        certificate_not_after=None if newest is None else newest.not_after,
        dns_names=record.dns_names,
    )
