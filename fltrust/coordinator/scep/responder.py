"""What each SCEP message is answered with. Who may have what is the registration authority's to decide.

    PKCSReq      signed by the new key itself; the challenge password is a join token
    RenewalReq   signed by a certificate of ours: the next one of the same identity
    CertPoll     signed by the key of a request that waits for operators

Every other type of message is refused. GetCert and GetCRL are: CRLs are at their own addresses.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AttributeOID

from fltrust.clock import Clock
from fltrust.coordinator.authority import Authority
from fltrust.coordinator.est import read_secret
from fltrust.coordinator.gate import Gate
from fltrust.enrollment.types import (
    EnrollmentProtocol,
    EnrollRequest,
    Issued,
    JoinTokenEvidence,
    Pending,
)
from fltrust.errors import FltrustError, Malformed, NotFound, PermissionDenied, SignatureInvalid
from fltrust.identity import KeyId
from fltrust.keys.openssh import spki_der
from fltrust.pki.csr import parse_request
from fltrust.pki.leaf import PARSE_ERRORS
from fltrust.pki.leaf_keys import LeafKey
from fltrust.protocols.scep.envelopes import certificates_for, cipher_of, open_envelope
from fltrust.protocols.scep.messages import (
    FailInfo,
    MessageType,
    PkiStatus,
    Received,
    Recipient,
    answer_to,
    bad_algorithm,
    read_message,
    suite_of,
    verify_message,
)
from fltrust.protocols.scep.suites import LEGACY, Suite

_log = logging.getLogger(__name__)

MAX_WAITING = 4_096
MAX_MODERN_KEYS = 65_536
_MAX_CHALLENGE = 4_096


@dataclass(frozen=True, slots=True)
class _Waiting:
    key_id: KeyId
    request_id: str
    csr_der: bytes


class ScepResponder:
    """One message in, one message out; blocking, and safe to call from many threads.

    Requests that wait are remembered by transaction until the process ends; a client that sends its
    PKCSReq again, with the same key and challenge, is given what its request became all the same.

    With `is_legacy_taken`, a message of the legacy suite is let in and answered in it, unless its key was
    served in the modern one before, in this process: that client knows better, and was talked out of it.
    """

    def __init__(
        self, authority: Authority, recipient: Recipient, clock: Clock, *, is_legacy_taken: bool = False
    ) -> None:
        self._authority = authority
        self._recipient = recipient
        self._gate = Gate(authority, clock)
        self._is_legacy_taken = is_legacy_taken
        self._lock = threading.Lock()
        self._modern_keys: OrderedDict[KeyId, None] = OrderedDict()
        self._waiting: OrderedDict[str, _Waiting] = OrderedDict()

    def answer(self, der: bytes, *, source: str) -> bytes:
        """Answer a message; what is no SCEP message at all raises `Malformed` or `Oversized`.

        1. It is taken apart within bounds (`read_message`).
        2. Its signature verifies in its suite and its type is one that a client may send (`verify_message`).
        3. Its envelope is in a cipher of the same suite (`cipher_of`), and in the legacy suite its key is
           none that knows better.
        4. It is decrypted (`open_envelope`). Whatever is wrong with what comes out is answered the same way
           as what does not come out: an answer must not tell how far a recorded envelope got.
        5. Its type decides what is done.
        """
        message = read_message(der)  # 1.
        suite = suite_of(message, is_legacy_taken=self._is_legacy_taken)
        try:
            key = verify_message(message, suite)  # 2.
            cipher = cipher_of(message, suite)  # 3.
            self._judge_suite(suite, key)
            self._authority.counters.add(f"scep.{MessageType(message.message_type).name.lower()}")
            outcome = self._decide(message, suite, key, source)  # 4. and 5.
        except FltrustError as error:
            return self._refuse(message, suite, failure_of(error))
        except Exception:
            _log.exception("a SCEP message failed")
            return self._refuse(message, suite, FailInfo.BAD_REQUEST)
        if isinstance(outcome, Pending):
            return self._reply(message, suite, PkiStatus.PENDING)
        content = certificates_for(message.signer, outcome.chain_der, suite=suite, cipher=cipher)
        return self._reply(message, suite, PkiStatus.SUCCESS, content=content)

    def _judge_suite(self, suite: Suite, key: LeafKey) -> None:
        if suite is not LEGACY:
            return
        with self._lock:
            knows_better = KeyId.of_spki(spki_der(key)) in self._modern_keys
        if knows_better:
            self._authority.counters.add("scep.downgrade")
            raise bad_algorithm()
        self._authority.counters.add("scep.legacy")

    def _served(self, suite: Suite, *keys: LeafKey) -> None:
        """Remember keys that were served in the modern suite: only of those whom the authority let in."""
        if suite is LEGACY or not self._is_legacy_taken:
            return
        with self._lock:
            for key in keys:
                self._modern_keys[KeyId.of_spki(spki_der(key))] = None
            while len(self._modern_keys) > MAX_MODERN_KEYS:
                self._modern_keys.popitem(last=False)

    def _decide(
        self, message: Received, suite: Suite, key: rsa.RSAPublicKey, source: str
    ) -> Issued | Pending:
        match message.message_type:
            case MessageType.PKCS_REQ:
                csr_der, evidence = self._first_request(message, suite, key)
                asked = EnrollRequest(evidence, csr_der, protocol=EnrollmentProtocol.SCEP, source=source)
                outcome = self._authority.submit(asked)
                if isinstance(outcome, Pending):
                    self._remember(message, key, outcome, csr_der)
                self._served(suite, key)
                return outcome
            case MessageType.RENEWAL_REQ:
                caller = self._gate.identify_chain((message.signer.public_bytes(Encoding.DER),))
                csr_der = open_envelope(message, self._recipient, suite)
                renewed = self._authority.session(caller).renew(
                    csr_der, message=message.signer_info.signature
                )
                self._served(suite, key, parse_request(csr_der))
                return renewed
            case MessageType.CERT_POLL:
                waiting = self._waited(message, key)
                return self._authority.collect(waiting.request_id, waiting.csr_der)
        raise Malformed("expected a SCEP message of a type that is known here", reason="unknown-type")

    def _first_request(
        self, message: Received, suite: Suite, key: rsa.RSAPublicKey
    ) -> tuple[bytes, JoinTokenEvidence]:
        """The request for the very key that signed the message, and the join token in it."""
        csr_der = open_envelope(message, self._recipient, suite)
        try:
            if parse_request(csr_der) != key:
                raise SignatureInvalid("expected a request for the key that signed the message")
            request = x509.load_der_x509_csr(csr_der)
            found = request.attributes.get_attribute_for_oid(AttributeOID.CHALLENGE_PASSWORD)
            challenge = found.value[:_MAX_CHALLENGE].decode("ascii")
            return csr_der, JoinTokenEvidence(read_secret(challenge))
        except (FltrustError, x509.AttributeNotFound, *PARSE_ERRORS):
            raise SignatureInvalid("expected a request of the signer's with a join token in it") from None

    def _remember(self, message: Received, key: rsa.RSAPublicKey, pending: Pending, csr_der: bytes) -> None:
        waiting = _Waiting(KeyId.of_spki(spki_der(key)), pending.request_id, csr_der)
        with self._lock:
            self._waiting[message.transaction_id] = waiting
            if len(self._waiting) > MAX_WAITING:
                self._waiting.popitem(last=False)

    def _waited(self, message: Received, key: rsa.RSAPublicKey) -> _Waiting:
        with self._lock:
            waiting = self._waiting.get(message.transaction_id)
        if waiting is None or waiting.key_id != KeyId.of_spki(spki_der(key)):
            raise NotFound("no request of this signer waits under this transaction")
        return waiting

    def _refuse(self, message: Received, suite: Suite, failure: FailInfo) -> bytes:
        self._authority.counters.add(f"scep.failure.{failure.name.lower().replace('_', '-')}")
        return self._reply(message, suite, PkiStatus.FAILURE, failure=failure)

    def _reply(
        self,
        message: Received,
        suite: Suite,
        status: PkiStatus,
        *,
        content: bytes | None = None,
        failure: FailInfo | None = None,
    ) -> bytes:
        nonce = secrets.token_bytes(16)
        return answer_to(
            message, self._recipient, status, suite=suite, nonce=nonce, content=content, failure=failure
        )


def failure_of(error: FltrustError) -> FailInfo:
    """The one word that SCEP has for it."""
    if error.reason == "bad-algorithm":
        return FailInfo.BAD_ALG
    if isinstance(error, NotFound):
        return FailInfo.BAD_CERT_ID
    if error.reason == "unknown-type" or isinstance(error, PermissionDenied):
        return FailInfo.BAD_REQUEST
    if isinstance(error, Malformed | SignatureInvalid):
        return FailInfo.BAD_MESSAGE_CHECK
    return FailInfo.BAD_REQUEST
