"""What each CMP message is answered with. Who may have what is the registration authority's to decide.

    ir, p10cr   by a credential's MAC       enrollment: the credential is spent
    cr, p10cr   by a certificate's signature    another certificate of the same identity
    kur         by a certificate's signature    the same; oldCertID, where it stands, names that certificate
    rr          by a certificate's signature    one's own certificate is given up
    certConf    same sender, same transaction   pkiConf; a certificate that is refused is revoked
    pollReq     same sender, same transaction   what became of a request that waits for operators

Every other combination, and every other kind of message, is refused.
"""

from __future__ import annotations

import hmac
import logging
from hashlib import sha256

from cryptography import x509

from fltrust.clock import Clock
from fltrust.coordinator.authority import Authority
from fltrust.coordinator.cmp.evidence import CmpEvidence
from fltrust.coordinator.cmp.parties import Parties, Party
from fltrust.coordinator.cmp.transactions import CmpTransaction, CmpTransactions
from fltrust.coordinator.self_revocation import give_up, take_back
from fltrust.enrollment.types import EnrollmentProtocol, EnrollRequest, Issued, Pending
from fltrust.errors import (
    Conflict,
    FltrustError,
    InvalidInput,
    LimitExceeded,
    Malformed,
    NotFound,
    PermissionDenied,
    Refused,
    Revoked,
    SignatureInvalid,
    Unavailable,
)
from fltrust.identity import Serial
from fltrust.protocols.cmp import requests
from fltrust.protocols.cmp.messages import (
    ANSWERS,
    Body,
    Failure,
    Incoming,
    Status,
    certificate_answer,
    confirmation,
    error_answer,
    kind_of,
    negative_answer,
    poll_answer,
    read_message,
    revocation_answer,
    status,
)

_log = logging.getLogger(__name__)

_BY_REASON = {
    "unknown-type": Failure.BAD_REQUEST,
    "bad-algorithm": Failure.BAD_ALG,
    "unsupported-version": Failure.UNSUPPORTED_VERSION,
    "transaction-in-use": Failure.TRANSACTION_ID_IN_USE,
    "bad-nonce": Failure.BAD_RECIPIENT_NONCE,
}
_FAILURES: tuple[tuple[type[FltrustError], Failure], ...] = (
    (Revoked, Failure.CERT_REVOKED),
    (SignatureInvalid, Failure.BAD_POP),
    (PermissionDenied, Failure.NOT_AUTHORIZED),
    (Refused, Failure.NOT_AUTHORIZED),
    (NotFound, Failure.BAD_CERT_ID),
    (Conflict, Failure.BAD_CERT_TEMPLATE),
    (InvalidInput, Failure.BAD_DATA_FORMAT),
    (LimitExceeded, Failure.SYSTEM_UNAVAIL),
    (Unavailable, Failure.SYSTEM_UNAVAIL),
)
_BY_MAC = frozenset({Body.IR, Body.P10CR})
_BY_SIGNATURE = frozenset({Body.CR, Body.P10CR, Body.KUR})


def failure_of(error: FltrustError) -> Failure:
    """The bit of PKIFailureInfo that says it best."""
    found = _BY_REASON.get(error.reason)
    return found or next((bit for kind, bit in _FAILURES if isinstance(error, kind)), Failure.SYSTEM_FAILURE)


class CmpResponder:
    """One message in, one message out; blocking, and safe to call from many threads."""

    def __init__(self, authority: Authority, clock: Clock) -> None:
        self._authority = authority
        self._parties = Parties(authority, clock)
        self._transactions = CmpTransactions(clock.monotonic)

    def answer(self, der: bytes, *, source: str) -> bytes:
        """Answer a message.

        1. It is taken apart within bounds (`read_message`), and its kind is one that a client may send
           (`kind_of`).
        2. Its protection names and proves its sender (`Parties.authenticate`), before its body is parsed.
        3. Its kind decides what is done; a refusal is answered as an error, protected like every answer.
        """
        message: Incoming | None = None
        party: Party | None = None
        try:
            message = read_message(der)  # 1.
            kind = kind_of(message)
            try:
                party = self._parties.authenticate(message)  # 2.
            except SignatureInvalid as error:
                self._authority.counters.add("refused.cmp-protection")
                return self._error(None, message, error.message, Failure.BAD_MESSAGE_CHECK)
            return self._dispatch(kind, message, party, der, source)  # 3.
        except FltrustError as error:
            return self._error(party, message, error.message, failure_of(error))
        except Exception:
            _log.exception("a CMP message failed")
            return self._error(party, message, "internal error", Failure.SYSTEM_FAILURE)

    def _error(self, party: Party | None, to: Incoming | None, words: str, failure: Failure) -> bytes:
        self._authority.counters.add(f"cmp.error.{failure.name.lower().replace('_', '-')}")
        return self._parties.protect(party, to, Body.ERROR, error_answer(words, failure))[0]

    def _dispatch(self, kind: Body, message: Incoming, party: Party, der: bytes, source: str) -> bytes:
        self._authority.counters.add(f"cmp.{kind.name.lower()}")
        match kind:
            case Body.IR | Body.CR | Body.P10CR | Body.KUR:
                return self._request(kind, message, party, der, source)
            case Body.RR:
                return self._revoke(message, party)
            case Body.CERT_CONF:
                return self._confirm(message, party)
            case Body.POLL_REQ:
                return self._poll(message, party)
        raise Malformed("expected a CMP message of a kind that is known here", reason="unknown-type")

    def _request(self, kind: Body, message: Incoming, party: Party, der: bytes, source: str) -> bytes:
        allowed = _BY_MAC if party.caller is None else _BY_SIGNATURE
        if kind not in allowed:
            raise PermissionDenied(
                "expected ir or p10cr under a credential's MAC, or cr, p10cr or kur under a signature; got "
                f"{kind.name.lower()} under the other"
            )
        cert_req_id, csr_der = requests.certificate_request(kind, message.content)
        if kind is Body.KUR and party.caller is not None:
            requests.check_old_certificate(message.content, party.caller.certificate.leaf)
        transaction = self._transactions.begin(
            message.transaction_id,
            CmpTransaction(
                party=party.name,
                kind=kind,
                cert_req_id=cert_req_id,
                csr_der=csr_der,
                request_digest=sha256(der).digest(),
            ),
        )
        if transaction.answer:  # the very same message again: its answer was lost
            return transaction.answer
        try:
            outcome = self._enroll(party, csr_der, message.protected, source)
        except FltrustError as error:
            self._transactions.end(message.transaction_id)
            refused = negative_answer(cert_req_id, Status.REJECTION, error.message, failure_of(error))
            return self._parties.protect(party, message, ANSWERS[kind], refused)[0]
        return self._hand_over(message, party, transaction, outcome)

    def _enroll(self, party: Party, csr_der: bytes, signed: bytes, source: str) -> Issued | Pending:
        if party.caller is not None:
            return self._authority.session(party.caller).renew(csr_der, message=signed)
        evidence = CmpEvidence(party.credential_id or "")
        return self._authority.submit(
            EnrollRequest(evidence, csr_der, protocol=EnrollmentProtocol.CMP, source=source)
        )

    def _hand_over(
        self, message: Incoming, party: Party, transaction: CmpTransaction, outcome: Issued | Pending
    ) -> bytes:
        confirmed = False
        if isinstance(outcome, Pending):
            transaction.request_id = outcome.request_id
            content = negative_answer(transaction.cert_req_id, Status.WAITING)
        else:
            leaf = x509.load_der_x509_certificate(outcome.chain_der[0])
            transaction.request_id = None
            transaction.issued = (outcome.spiffe_id, Serial(leaf.serial_number), outcome.chain_der[0])
            # caPubs under a MAC alone: they come from somebody who knows the shared key (RFC 9483, 4.1.1).
            roots = outcome.bundle.roots if party.caller is None else ()
            content = certificate_answer(transaction.cert_req_id, leaf, ca_pubs=roots)
            confirmed = message.wants_implicit_confirm
        answer, transaction.nonce = self._parties.protect(
            party, message, ANSWERS[transaction.kind], content, confirmed=confirmed
        )
        if not transaction.answer:
            transaction.answer = answer
        return answer

    def _poll(self, message: Incoming, party: Party) -> bytes:
        asked = requests.polled(message.content)
        transaction = self._continued(message, party)
        if transaction.request_id is None or asked != transaction.cert_req_id:
            raise NotFound("no request of this transaction waits for operators")
        try:
            outcome = self._authority.collect(transaction.request_id, transaction.csr_der)
        except FltrustError as error:
            self._transactions.end(message.transaction_id)
            refused = negative_answer(asked, Status.REJECTION, error.message, failure_of(error))
            return self._parties.protect(party, message, ANSWERS[transaction.kind], refused)[0]
        if isinstance(outcome, Pending):
            seconds = max(1, round(outcome.retry_after.total_seconds()))
            content = poll_answer(asked, seconds)
            answer, transaction.nonce = self._parties.protect(party, message, Body.POLL_REP, content)
            return answer
        return self._hand_over(message, party, transaction, outcome)

    def _confirm(self, message: Incoming, party: Party) -> bytes:
        transaction = self._continued(message, party)
        if transaction.issued is None:
            raise NotFound("no certificate of this transaction awaits its confirmation")
        who, serial, der = transaction.issued
        confirmed = requests.confirmed(message.content)
        if confirmed.cert_req_id != transaction.cert_req_id or not hmac.compare_digest(
            confirmed.cert_hash, sha256(der).digest()
        ):
            raise NotFound("expected the confirmation of the certificate that was issued, got another's")
        self._transactions.end(message.transaction_id)
        if not confirmed.is_accepted:
            take_back(self._authority, who, serial)
            self._authority.counters.add("cmp.refused-by-holder")
        return self._parties.protect(party, message, Body.PKICONF, confirmation())[0]

    def _revoke(self, message: Incoming, party: Party) -> bytes:
        if party.caller is None:
            raise PermissionDenied("expected rr to be signed with a certificate of the same identity")
        asked = requests.revocation(message.content)
        try:
            give_up(self._authority, party.caller, asked.serial, reason=asked.reason)
            info = status(Status.ACCEPTED)
        except FltrustError as error:
            info = status(Status.REJECTION, error.message, failure_of(error))
        return self._parties.protect(party, message, Body.RP, revocation_answer(info))[0]

    def _continued(self, message: Incoming, party: Party) -> CmpTransaction:
        """The transaction that this message goes on with: the same sender's, giving our last nonce back."""
        transaction = self._transactions.get(message.transaction_id, party.name)
        if not hmac.compare_digest(message.header.recip_nonce or b"", transaction.nonce):
            raise Malformed("expected our last nonce in the next message", reason="bad-nonce")
        return transaction
