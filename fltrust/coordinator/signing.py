"""Signing at the coordinator: a certificate for minutes, and what makes a signature verifiable for good."""

from __future__ import annotations

from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.artifacts.bundle import MAX_CERTIFICATE
from fltrust.artifacts.envelope import MAX_ENVELOPE, SignedEnvelope
from fltrust.artifacts.ports import EntryKind
from fltrust.coordinator.ca import CurrentCa
from fltrust.coordinator.counters import Counters
from fltrust.coordinator.countersigner import Countersigner
from fltrust.coordinator.ledger import Ledger, Work
from fltrust.coordinator.public_names import PublicNaming
from fltrust.coordinator.sequencer import Sequencer
from fltrust.coordinator.statements import open_statement
from fltrust.coordinator.taint import TaintDesk
from fltrust.enrollment.ports import CertificateRecord
from fltrust.enrollment.registration import refuse_used_key
from fltrust.errors import CertificateRefused, LimitExceeded, Oversized, Refusal, Revoked
from fltrust.identity import Digest, KeyId, Serial
from fltrust.keys.openssh import spki_der
from fltrust.keys.verify import is_p256
from fltrust.pki.codesigning import IssuedSigner, check_signing_profile
from fltrust.pki.csr import parse_csr
from fltrust.pki.leaf import PARSE_ERRORS, read_leaf
from fltrust.pki.types import VerifiedCertificate
from fltrust.revocation.state import Standing

MAX_LIVE_SIGNING = 1_024
"""Certificates in force up to which an identity gets another one to sign with. Half of what an identity may
have in all, so that signing never keeps it from renewing."""


class SigningOffice:
    """`fltrust.artifacts.ports.SigningDesk`, told who calls. Each call is durable when it returns."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        sequencer: Sequencer,
        ca: CurrentCa,
        countersigner: Countersigner,
        taints: TaintDesk,
        names: PublicNaming,
        counters: Counters,
    ) -> None:
        self._ledger = ledger
        self._sequencer = sequencer
        self._ca = ca
        self._countersigner = countersigner
        self._taints = taints
        self._names = names
        self._counters = counters

    def certify(self, caller: VerifiedCertificate, csr_der: bytes) -> tuple[bytes, ...]:
        """Issue a code-signing certificate to the caller's own name, for a key that was never certified.

        Judged under the head's lock, so that none is issued past a revocation. The request's names are not
        read. Refused (``too-many-certificates``) while `MAX_LIVE_SIGNING` have not expired.
        """
        public_key = parse_csr(csr_der)
        who = caller.spiffe_id

        def issue(work: Work) -> IssuedSigner:
            work.state.judge(caller)
            refuse_used_key(KeyId.of_spki(spki_der(public_key)), who, certificates=work.tx.certificates)
            if work.tx.certificates.count_unexpired_of(who, now=work.now) >= MAX_LIVE_SIGNING:
                raise LimitExceeded(
                    f"expected {who} to have fewer than {MAX_LIVE_SIGNING} certificates in force",
                    reason="too-many-certificates",
                    hint="sign several statements with one certificate, or wait: each lives for minutes",
                )
            return self._countersigner.certify(who, public_key, work)

        issued = self._sequencer.run(issue)
        self._counters.add("signing.certificates")
        return (
            issued.certificate.public_bytes(Encoding.DER),
            self._ca.issuer.certificate.public_bytes(Encoding.DER),
        )

    def countersign(
        self,
        caller: VerifiedCertificate,
        envelope: bytes,
        certificate: bytes,
        *,
        entry_kind: EntryKind = EntryKind.HASHEDREKORD,
    ) -> bytes:
        """Make the caller's signature verifiable for good; see `SigningDesk.countersign`.

        1. Bounds, before anything is parsed.
        2. The envelope: strict DSSE of an in-toto statement, one signature.
        3. The certificate is one that was issued here, to this caller. What was countersigned with it
           before is answered as it was, also after the certificate ran out.
        4. It is for code signing, and valid now; the signature is by its key.
        5. The statement is of a kind known here, and the caller may make it (`open_statement`).
        6. Under the head's lock: the caller and its certificate stand well, and the statement agrees with
           the record. The signature is logged and what it says is kept, in one transaction.
        7. The bundle is proven at the size of the log that this gives, and kept for 3.

        Raises `Malformed`, `Oversized`, `CertificateRefused`, `SignatureInvalid`, `StatementRefused`,
        `PermissionDenied`, `Conflict`; then nothing was logged.
        """
        # 1.
        if len(envelope) > MAX_ENVELOPE or len(certificate) > MAX_CERTIFICATE:
            raise Oversized(
                f"expected an envelope of at most {MAX_ENVELOPE} bytes and a certificate of {MAX_CERTIFICATE}"
            )
        # 2.
        signed = SignedEnvelope.from_json(envelope)
        # 3.
        leaf = _load(certificate)
        request = _request_digest(signed, certificate, entry_kind)
        with self._ledger.reading() as tx:
            record = tx.certificates.by_serial(Serial(leaf.serial_number))
            if record is None or record.der != certificate or record.spiffe_id != caller.spiffe_id:
                raise CertificateRefused(
                    f"expected a code-signing certificate that was issued here to {caller.spiffe_id}",
                    reason=Refusal.WRONG_CERTIFICATE,
                )
            known = tx.countersigned.get(request)
        if known is not None:
            return known
        # 4.
        self._check_certificate(leaf, record)
        public_key = leaf.public_key()
        if not is_p256(public_key):
            raise CertificateRefused("expected a P-256 key in a code-signing certificate")
        signed.verify(public_key)
        # 5.
        statement = open_statement(signed.payload, caller.spiffe_id, ledger=self._ledger, names=self._names)
        self._taints.catch_up()
        timestamp = self._countersigner.timestamp(signed)

        def finish(work: Work) -> bytes:
            # 6.
            work.state.judge(caller)
            _judge_certificate(record, work)
            known = work.tx.countersigned.get(request)  # the same, at the same time
            if known is not None:
                return known
            statement.check(work)
            done = self._countersigner.countersign(
                signed,
                certificate,
                timestamp,
                work,
                kind=entry_kind,
                subjects=(str(caller.spiffe_id), *statement.subjects),
            )
            statement.record(work, done, self._taints)
            # 7.
            work.tx.countersigned.put(request, done.bundle)
            return done.bundle

        bundle = self._sequencer.run(finish)
        self._counters.add("signing.countersigned")
        return bundle

    def _check_certificate(self, leaf: x509.Certificate, record: CertificateRecord) -> None:
        check_signing_profile(read_leaf(leaf))
        if not record.not_before <= self._ledger.now() <= record.not_after:
            raise CertificateRefused(
                f"the signing certificate of {record.spiffe_id} ran out",
                reason=Refusal.CERTIFICATE_EXPIRED,
                hint="ask for a new one and sign again",
            )


def _load(certificate: bytes) -> x509.Certificate:
    try:
        leaf = x509.load_der_x509_certificate(certificate)
        _ = leaf.extensions, leaf.public_key(), Serial(leaf.serial_number)
    except PARSE_ERRORS:
        raise CertificateRefused(
            "expected a certificate in DER, got something else", reason=Refusal.MALFORMED
        ) from None
    return leaf


def _request_digest(envelope: SignedEnvelope, certificate: bytes, kind: EntryKind) -> Digest:
    """What makes two requests one: statement, signature, certificate and kind, whatever JSON's spacing."""
    parts = (kind.encode(), envelope.pae_digest, envelope.signature, certificate)
    sized = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return Digest("sha256", sha256(b"fltrust-countersign-v1\x00" + sized).digest())


def _judge_certificate(record: CertificateRecord, work: Work) -> None:
    """The signing certificate itself is not barred. One that was issued before its identity was revoked
    stays barred when that is enrolled anew."""
    standings = (work.state.serial_standing(record.serial), work.state.key_standing(record.key_id))
    if any(standing is not Standing.ACTIVE for standing in standings):
        raise Revoked(
            f"the signing certificate {record.serial.hex} of {record.spiffe_id} is revoked or held",
            reason=Refusal.REVOKED,
        )
