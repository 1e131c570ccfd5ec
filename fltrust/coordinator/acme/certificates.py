"""From a proved order to a certificate, through the registration authority; and certificates revoked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.coordinator import standing
from fltrust.coordinator.acme.accounts import AccountDesk
from fltrust.coordinator.acme.evidence import AcmeEvidence
from fltrust.coordinator.acme.orders import OrderDesk, OrderView, to_document
from fltrust.coordinator.authority import Authority
from fltrust.coordinator.ledger import Work
from fltrust.enrollment.ports import CertificateRecord
from fltrust.enrollment.types import EnrollmentProtocol, EnrollRequest, Issued, Pending
from fltrust.errors import FltrustError, LimitExceeded, NotFound, Unavailable
from fltrust.identity import KeyId, Role, Serial
from fltrust.keys.openssh import spki_der
from fltrust.pki.bundle import chain_to_pem
from fltrust.pki.csr import parse_csr
from fltrust.pki.leaf import PARSE_ERRORS
from fltrust.pki.profiles import BACKDATE
from fltrust.protocols.acme.csr import check_csr
from fltrust.protocols.acme.jwk import AccountKey, key_of
from fltrust.protocols.acme.messages import Revocation
from fltrust.protocols.acme.problems import (
    AcmeProblem,
    ProblemType,
    malformed,
    problem_of,
    unauthorized,
)
from fltrust.protocols.acme.state import Order, OrderStatus
from fltrust.revocation.ports import RevocationTarget
from fltrust.revocation.state import Standing

WAIT = timedelta(seconds=5)
"""When to ask again about an order that is being processed."""


class CertificateDesk:
    """Finalizes orders and revokes certificates; blocking, for the write lane."""

    def __init__(self, authority: Authority, accounts: AccountDesk, orders: OrderDesk) -> None:
        self._authority = authority
        self._accounts = accounts
        self._orders = orders
        self._lock = threading.Lock()
        self._at_work: set[str] = set()

    def finalize(
        self, account_id: str, order_id: str, csr_der: bytes, *, key: AccountKey, source: str
    ) -> OrderView:
        """Take an order's CSR, once, and have its certificate issued (RFC 8555, 7.4).

        1. The CSR asks for exactly the order's names, with a key of its own that was never certified.
        2. The order is ready: every name was proved, and nobody finalized it before; else ``orderNotReady``.
        3. It is written down as processing, then the registration authority decides (`progress`).
        """
        # 1.
        check_csr(csr_der, names=self._orders.read(account_id, order_id).order.names, account=key)
        with self._authority.ledger.writing() as work:
            self._accounts.entitled(account_id, work)
            if work.tx.certificates.by_key(_key_id(csr_der)) is not None:
                raise AcmeProblem(ProblemType.BAD_PUBLIC_KEY, "expected a new key for every certificate")
            # 2.
            view = self._orders.view(account_id, order_id, work.tx)
            if view.status is not OrderStatus.READY:
                raise AcmeProblem(
                    ProblemType.ORDER_NOT_READY, f"expected an order that is ready, this one is {view.status}"
                )
            # 3.
            taken = replace(view.order, status=OrderStatus.PROCESSING, csr_der=csr_der)
            work.tx.acme.put_order(taken)
        return self.progress(account_id, order_id, source=source)

    def progress(self, account_id: str, order_id: str, *, source: str) -> OrderView:
        """The order, brought as far as it goes: one that waits for operators, or that a crash left behind, is
        asked about again. A refusal ends it; what may pass (`Unavailable`) does not."""
        view = self._orders.read(account_id, order_id)
        if view.order.status is not OrderStatus.PROCESSING:
            return view
        with self._alone(order_id) as is_alone:
            if is_alone:
                self._settle(view.order, source)
        return self._orders.read(account_id, order_id)

    def _settle(self, order: Order, source: str) -> None:
        try:
            outcome = self._certified_before(order) or self._ask(order, source)
        except (Unavailable, LimitExceeded):
            return
        except FltrustError as error:
            document = to_document(problem_of(error))
            self._write(order, replace(order, status=OrderStatus.INVALID, problem=document))
            return
        if isinstance(outcome, Pending):
            self._write(order, replace(order, request_id=outcome.request_id))
            return
        chain = [x509.load_der_x509_certificate(der) for der in outcome.chain_der]
        done = replace(
            order,
            status=OrderStatus.VALID,
            serial=Serial(chain[0].serial_number),
            chain_pem=chain_to_pem(chain),
        )
        self._write(order, done)

    def _ask(self, order: Order, source: str) -> Issued | Pending:
        csr_der = order.csr_der or b""
        if order.request_id is not None:
            return self._authority.enroller.collect(order.request_id, csr_der)
        with self._authority.ledger.reading() as tx:
            account = tx.acme.account(order.account_id)
            if account is None:
                raise NotFound("no such account")
            record = tx.enrollments.get(self._accounts.server_of(account))
        evidence = AcmeEvidence(
            account.account_id,
            order.order_id,
            account.server,
            order.names,
            None if record is None else record.enrolled_by,
        )
        request = EnrollRequest(evidence, csr_der, protocol=EnrollmentProtocol.ACME, source=source)
        return self._authority.enroller.submit(request)

    def _certified_before(self, order: Order) -> Issued | None:
        """The certificate that was issued for this order before a crash kept it from being written down."""
        with self._authority.ledger.reading() as tx:
            record = tx.certificates.by_key(_key_id(order.csr_der or b""))
            account = tx.acme.account(order.account_id)
        if record is None or account is None or record.spiffe_id != self._accounts.server_of(account):
            return None
        if record.not_before + BACKDATE < order.created_at.replace(microsecond=0):
            return None
        ca = self._authority.ca.now
        leaf = x509.load_der_x509_certificate(record.der)
        chain: tuple[bytes, ...] = (record.der,)
        # Where another issuing CA is in force by now, the leaf says where to find its own.
        with suppress(*PARSE_ERRORS, InvalidSignature):
            leaf.verify_directly_issued_by(ca.issuer.certificate)
            chain = (record.der, ca.issuer.certificate.public_bytes(Encoding.DER))
        return Issued(record.spiffe_id, chain, ca.bundle)

    def _write(self, before: Order, after: Order) -> None:
        with self._authority.ledger.writing() as work:
            now = work.tx.acme.order(before.order_id)
            if now is not None and now.status is OrderStatus.PROCESSING:
                work.tx.acme.put_order(after)

    @contextmanager
    def _alone(self, order_id: str) -> Iterator[bool]:
        """Whether nobody else in this process asks about the order."""
        with self._lock:
            is_alone = order_id not in self._at_work
            self._at_work.add(order_id)
        try:
            yield is_alone
        finally:
            if is_alone:
                with self._lock:
                    self._at_work.discard(order_id)

    def revoke(self, request: Revocation, *, account_id: str | None, key: AccountKey | None) -> None:
        """Revoke a server's certificate (RFC 8555, 7.6), for who may ask for that:

        - the account that its server was opened for (`account_id`), or
        - the holder of its key (`key`).

        Anybody else is ``unauthorized``; one that is revoked already ``alreadyRevoked``. Only certificates of
        servers are revoked here, and one that is not on record, byte for byte, is not there.
        """
        with self._authority.ledger.writing() as work:
            record = _on_record(request.certificate_der, work)
            if account_id is not None:
                account = self._accounts.entitled(account_id, work)
                may = record.spiffe_id == self._accounts.server_of(account)
            else:
                may = key is not None and _is_key_of(record, key)
            if not may or record.spiffe_id.role is not Role.SERVER:
                raise unauthorized("expected the account of this certificate's server, or its key")
            if work.state.serial_standing(record.serial) is Standing.REVOKED:
                raise AcmeProblem(ProblemType.ALREADY_REVOKED, "this certificate is revoked already")
            target = RevocationTarget(serial=record.serial)
            for subject in standing.resolve(target, work, domain=self._authority.settings.domain):
                event = standing.revoke(
                    subject,
                    work,
                    actor=record.spiffe_id,
                    reason=request.reason,
                    compromised_since=None,
                )
                if event in work.emitted:
                    self._authority.desks.taints.spread(work, event)

    def chain(self, account_id: str, order_id: str) -> bytes:
        """The certificate of an order with its issuer's, in PEM; `NotFound` before there is one."""
        order = self._orders.read(account_id, order_id).order
        if order.chain_pem is None:
            raise NotFound("no certificate of this order yet")
        return order.chain_pem


def _key_id(csr_der: bytes) -> KeyId:
    return KeyId.of_spki(spki_der(parse_csr(csr_der)))


def _on_record(certificate_der: bytes, work: Work) -> CertificateRecord:
    try:
        serial = Serial(x509.load_der_x509_certificate(certificate_der).serial_number)
    except (*PARSE_ERRORS, FltrustError):
        raise malformed("expected a certificate in DER") from None
    record = work.tx.certificates.by_serial(serial)
    if record is None or record.der != certificate_der:
        raise NotFound("no such certificate was issued here")
    return record


def _is_key_of(record: CertificateRecord, key: AccountKey) -> bool:
    certificate = x509.load_der_x509_certificate(record.der)
    return key_of(certificate.public_key()).thumbprint == key.thumbprint
