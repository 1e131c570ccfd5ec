"""OCSP for one trust domain: which CA is meant, what is known, and who signs.

An answer without a nonce is signed once and served again until half of its life is over or its certificate
changed (pre-signed); one with a nonce is signed for its asker (on demand).
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from fltrust.coordinator.enroller import record_of
from fltrust.coordinator.ledger import Ledger
from fltrust.coordinator.status.changes import StatusChanges
from fltrust.coordinator.status_settings import StatusSettings
from fltrust.errors import FltrustError, InvalidInput
from fltrust.identity import CaKeyId, Epoch, Serial
from fltrust.keys.file import generate
from fltrust.pki.crl import CrlReason
from fltrust.pki.issuing import Issuer
from fltrust.pki.leaf import ca_key_id
from fltrust.pki.ocsp import (
    GOOD,
    UNKNOWN,
    CaNames,
    CertStatus,
    OcspFailure,
    Question,
    Responder,
    Status,
    failure,
    read_request,
    serial_of,
)
from fltrust.pki.pointers import key_identifier_of
from fltrust.pki.profiles import BACKDATE
from fltrust.pki.responder import ResponderDraft, issue_responder
from fltrust.pki.rfc6960 import CertId
from fltrust.revocation.status import StatusState

_log = logging.getLogger(__name__)

MAX_PRESIGNED: Final = 20_000
"""Answers of one CA that are kept; some 1.2 KiB each."""


@dataclass(frozen=True, slots=True)
class OcspAnswer:
    """An answer in DER. One that others may be given too says from when and until when it is good."""

    der: bytes
    this_update: datetime | None = None
    next_update: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Signed:
    answer: OcspAnswer
    status: Status
    renew_at: datetime
    changes: Epoch


class OcspDesk:
    """Answers for one CA. For many threads."""

    def __init__(
        self,
        issuer: Issuer,
        *,
        ledger: Ledger,
        changes: StatusChanges,
        settings: StatusSettings,
        is_service: Callable[[Serial, CaKeyId], bool],
    ) -> None:
        self.issuer = issuer
        self.names = CaNames(issuer.certificate)
        self._key_id = key_identifier_of(issuer.certificate)
        self._ca_key = ca_key_id(issuer.certificate.public_key())
        self._ledger = ledger
        self._changes = changes
        self._settings = settings
        self._is_service = is_service
        self._lock = threading.Lock()
        self._responder: Responder | None = None
        self._ca_revocation: tuple[Epoch, datetime | None] | None = None
        self._presigned: OrderedDict[tuple[bytes, bool, int], _Signed] = OrderedDict()

    def answer(self, question: Question) -> OcspAnswer:
        """Answer everything that is asked; what is of another CA is *unknown* here."""
        if question.nonce is None and len(question.asked) == 1:
            return self._presigned_answer(question.asked[0])
        statuses = [(cert_id, self._status(cert_id)) for cert_id in question.asked]
        now = self._ledger.now()
        signed = self._current_responder(now).answer(
            statuses,
            at=now - BACKDATE,
            lifetime=self._settings.ocsp_lifetime + BACKDATE,
            nonce=question.nonce,
            is_ca_revoked=self._ca_revoked_at() is not None,
        )
        return OcspAnswer(signed)

    def _presigned_answer(self, cert_id: CertId) -> OcspAnswer:
        # The answer repeats the question's words, of which one may be left out: for each, its own.
        is_bare = cert_id.hash_algorithm.parameters is None
        key = (cert_id.issuer_key_hash, is_bare, cert_id.serial)
        now, changes = self._ledger.now(), self._changes.last()
        kept = self._presigned.get(key)
        is_young = kept is not None and kept.renew_at - self._settings.ocsp_lifetime <= now < kept.renew_at
        if kept is not None and is_young and kept.changes == changes:
            return kept.answer
        status = self._status(cert_id)
        if kept is None or not is_young or kept.status != status:
            kept = self._sign(cert_id, status, now, changes)
        else:
            kept = _Signed(kept.answer, status, kept.renew_at, changes)
        if status.value is not CertStatus.UNKNOWN:  # else whoever asks for random serials fills the memory
            with self._lock:
                self._presigned[key] = kept
                self._presigned.move_to_end(key)
                if len(self._presigned) > MAX_PRESIGNED:
                    self._presigned.popitem(last=False)
        return kept.answer

    def _sign(self, cert_id: CertId, status: Status, now: datetime, changes: Epoch) -> _Signed:
        life, responder = self._settings.ocsp_lifetime, self._current_responder(now)
        signed = responder.answer(
            [(cert_id, status)],
            at=now - BACKDATE,
            lifetime=life + BACKDATE,
            is_ca_revoked=self._ca_revoked_at() is not None,
        )
        until = min(now + life, responder.certificate.not_valid_after_utc)
        answer = OcspAnswer(signed, now - BACKDATE, until)
        return _Signed(answer, status, now + (until - now) / 2, changes)

    def _status(self, cert_id: CertId) -> Status:
        """What is known of one certificate.

        1. Of another CA, or with a serial that none can have: *unknown*.
        2. Revoked or on hold: *revoked*, since when and why. For good: no certificate becomes *good* by
           running out.
        3. Its CA was revoked: *revoked*, whether it was issued or not (RFC 6960, 2.7): who holds that key
           can issue what is on no record.
        4. On record as issued here: *good*. Never issued: *unknown*.
        """
        # 1.
        serial = serial_of(cert_id)
        if serial is None or not self.names.is_meant_by(cert_id):
            return UNKNOWN
        with self._ledger.reading() as tx:
            issued, known = tx.statuses.look_up(serial)
        # 2.
        if known is not None and known.issuer == self._key_id and known.state is not StatusState.RELEASED:
            return Status(CertStatus.REVOKED, known.since, known.reason)
        # 3.
        ca_revoked_at = self._ca_revoked_at()
        if ca_revoked_at is not None:
            return Status(CertStatus.REVOKED, ca_revoked_at, CrlReason.CA_COMPROMISE)
        # 4.
        is_issued = issued is not None and issued.issuer == self._key_id
        return GOOD if is_issued or self._is_service(serial, self._key_id) else UNKNOWN

    def _ca_revoked_at(self) -> datetime | None:
        """Since when the CA is revoked, if it is; looked up again when anything was revoked since."""
        changes, kept = self._changes.last(), self._ca_revocation
        if kept is None or kept[0] != changes:
            with self._ledger.reading() as tx:
                kept = (changes, tx.statuses.issuer_revoked_at(self._ca_key))
            self._ca_revocation = kept
        return kept[1]

    def _current_responder(self, now: datetime) -> Responder:
        """The responder to sign with; a new key and certificate after half of the last one's life."""
        with self._lock:
            held = self._responder
            if held is not None:
                start, end = held.certificate.not_valid_before_utc, held.certificate.not_valid_after_utc
                if start <= now < start + (end - start) / 2:
                    return held
            try:
                self._responder = self._new_responder(now)
            except FltrustError:
                if held is None or not held.is_valid_at(now):
                    raise
                return held
            return self._responder

    def _new_responder(self, now: datetime) -> Responder:
        """Have a responder certified: on record and in the log before anything is signed with it."""
        signer = generate()
        draft = ResponderDraft.of(self.issuer, signer.public_key, now=now)
        certificate = issue_responder(self.issuer, draft)
        with self._ledger.writing() as work:
            work.add_certificate(record_of(certificate, draft.spiffe_id))
        return Responder(certificate=certificate, signer=signer)


def answer_all(request: bytes, desks: tuple[OcspDesk, ...]) -> OcspAnswer:
    """Answer an OCSPRequest in DER, whatever was asked.

    *malformedRequest* for what cannot be read, *unauthorized* where no CA of ours is meant (RFC 5019,
    2.2.3), *tryLater* where nobody can sign now.
    """
    try:
        question = read_request(request)
    except InvalidInput:
        return OcspAnswer(failure(OcspFailure.MALFORMED_REQUEST))
    for desk in desks:
        if any(desk.names.is_meant_by(cert_id) for cert_id in question.asked):
            try:
                return desk.answer(question)
            except FltrustError as error:
                _log.warning("nobody signs OCSP answers of a CA: %s", error)
                return OcspAnswer(failure(OcspFailure.TRY_LATER))
    return OcspAnswer(failure(OcspFailure.UNAUTHORIZED))
