"""Orders and their authorizations: made, proved, given up."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, replace
from datetime import timedelta

from cryptography import x509

from fltrust.coordinator.acme.accounts import AccountDesk, new_id
from fltrust.coordinator.authority import Authority
from fltrust.coordinator.ledger import Work
from fltrust.coordinator.ports import Transaction
from fltrust.errors import NotFound
from fltrust.protocols.acme.ari import id_of, read_id
from fltrust.protocols.acme.messages import NewOrder
from fltrust.protocols.acme.problems import AcmeProblem, ProblemType, malformed, unauthorized
from fltrust.protocols.acme.state import (
    Account,
    Authorization,
    AuthorizationStatus,
    Challenge,
    ChallengeKind,
    ChallengeStatus,
    Order,
    OrderStatus,
    status_of,
)
from fltrust.strictbase64 import to_base64url

ORDER_LIFE = timedelta(days=1)
"""For an order to be proved and finalized."""
MAX_OPEN = 32
"""Orders of one account that are not finished."""


@dataclass(frozen=True, slots=True)
class OrderView:
    """An order with what its status follows from, at one moment."""

    order: Order
    authorizations: tuple[Authorization, ...]
    status: OrderStatus


@dataclass(frozen=True, slots=True)
class AuthorizationView:
    authorization: Authorization
    challenges: tuple[Challenge, ...]
    status: AuthorizationStatus


@dataclass(frozen=True, slots=True)
class Attempt:
    """One challenge to validate: where, and what must be found there."""

    authorization_id: str
    kind: ChallengeKind
    name: str
    token: str
    thumbprint: str


class OrderDesk:
    """Every method is one transaction; an object that is another account's is not there (`NotFound`)."""

    def __init__(self, authority: Authority, accounts: AccountDesk) -> None:
        self._authority = authority
        self._accounts = accounts

    def create(self, account_id: str, request: NewOrder) -> OrderView:
        """Make an order for names that an operator stated, each with an authorization of its own.

        ``rejectedIdentifier`` names those that are not stated; ``rateLimited`` past `MAX_OPEN` open ones.
        """
        with self._authority.ledger.writing() as work:
            account = self._accounts.entitled(account_id, work)
            _check_names(account, request.names)
            if request.replaces is not None:
                self._check_replaced(account, request, work)
            if work.tx.acme.count_open(account_id, now=work.now) >= MAX_OPEN:
                raise AcmeProblem(
                    ProblemType.RATE_LIMITED, f"expected at most {MAX_OPEN} orders that are not finished"
                )
            order = Order(
                order_id=new_id(),
                account_id=account_id,
                names=request.names,
                status=OrderStatus.PENDING,
                created_at=work.now,
                expires_at=work.now + ORDER_LIFE,
                replaces=request.replaces,
            )
            authorizations = tuple(_authorization(order, name) for name in order.names)
            challenges = [
                Challenge(
                    authorization_id=one.authorization_id,
                    kind=kind,
                    token=to_base64url(secrets.token_bytes(32)),
                    status=ChallengeStatus.PENDING,
                )
                for one in authorizations
                for kind in ChallengeKind
            ]
            work.tx.acme.add_order(order, authorizations, challenges)
        return OrderView(order, authorizations, OrderStatus.PENDING)

    def read(self, account_id: str, order_id: str) -> OrderView:
        with self._authority.ledger.reading() as tx:
            return self.view(account_id, order_id, tx)

    def view(self, account_id: str, order_id: str, tx: Transaction) -> OrderView:
        order = tx.acme.order(order_id)
        if order is None or order.account_id != account_id:
            raise NotFound("no such order of this account")
        authorizations = tx.acme.authorizations_of(order_id)
        return OrderView(order, authorizations, status_of(order, authorizations, self._authority.now()))

    def list(self, account_id: str, *, limit: int = 100) -> tuple[str, ...]:
        with self._authority.ledger.reading() as tx:
            return tx.acme.orders_of(account_id, limit=limit)

    def read_authorization(self, account_id: str, authorization_id: str) -> AuthorizationView:
        with self._authority.ledger.reading() as tx:
            return self._authorization_view(account_id, authorization_id, tx)

    def _authorization_view(
        self, account_id: str, authorization_id: str, tx: Transaction
    ) -> AuthorizationView:
        found = tx.acme.authorization(authorization_id)
        if found is None or found.account_id != account_id:
            raise NotFound("no such authorization of this account")
        challenges = tx.acme.challenges_of(authorization_id)
        return AuthorizationView(found, challenges, found.status_at(self._authority.now()))

    def deactivate(self, account_id: str, authorization_id: str) -> AuthorizationView:
        """Give an authorization up, for good (RFC 8555, 7.5.2)."""
        with self._authority.ledger.writing() as work:
            view = self._authorization_view(account_id, authorization_id, work.tx)
            if view.status not in (AuthorizationStatus.PENDING, AuthorizationStatus.VALID):
                raise malformed(f"expected an authorization that is pending or valid, it is {view.status}")
            given_up = replace(view.authorization, status=AuthorizationStatus.DEACTIVATED)
            work.tx.acme.put_authorization(given_up)
        return AuthorizationView(given_up, view.challenges, given_up.status)

    def answer(
        self, account_id: str, authorization_id: str, kind: ChallengeKind
    ) -> tuple[AuthorizationView, Attempt | None]:
        """Take a client's word that a challenge can be validated; gives what is to be validated now.

        One that was answered before is as it is. One that a crash left unfinished is validated again.
        """
        with self._authority.ledger.writing() as work:
            account = self._accounts.entitled(account_id, work)
            view = self._authorization_view(account_id, authorization_id, work.tx)
            challenge = _challenge(view, kind)
            if view.status is not AuthorizationStatus.PENDING or challenge.status not in _UNFINISHED:
                return view, None
            challenge = replace(challenge, status=ChallengeStatus.PROCESSING)
            work.tx.acme.put_challenge(challenge)
            view = self._authorization_view(account_id, authorization_id, work.tx)
        name, token = view.authorization.name, challenge.token
        return view, Attempt(authorization_id, kind, name, token, account.thumbprint)

    def finish(self, attempt: Attempt, problem: AcmeProblem | None) -> None:
        """Write down what a validation found. A failure ends challenge, authorization and order.

        Nothing is written for an authorization that expired or was given up meanwhile, nor when the account's
        key is another by now: what was found was made with the old one.
        """
        with self._authority.ledger.writing() as work:
            found = work.tx.acme.authorization(attempt.authorization_id)
            if found is None or found.status_at(work.now) is not AuthorizationStatus.PENDING:
                return
            account = work.tx.acme.account(found.account_id)
            if account is None or account.thumbprint != attempt.thumbprint:
                problem = problem or unauthorized("the account's key was changed during the validation")
            view = AuthorizationView(found, work.tx.acme.challenges_of(found.authorization_id), found.status)
            challenge = _challenge(view, attempt.kind)
            if problem is None:
                passed = replace(challenge, status=ChallengeStatus.VALID, validated_at=work.now)
                work.tx.acme.put_challenge(passed)
                work.tx.acme.put_authorization(replace(found, status=AuthorizationStatus.VALID))
                return
            document = to_document(problem)
            work.tx.acme.put_challenge(replace(challenge, status=ChallengeStatus.INVALID, problem=document))
            work.tx.acme.put_authorization(replace(found, status=AuthorizationStatus.INVALID))
            order = work.tx.acme.order(found.order_id)
            if order is not None and order.status is OrderStatus.PENDING:
                work.tx.acme.put_order(replace(order, status=OrderStatus.INVALID, problem=document))

    def _check_replaced(self, account: Account, request: NewOrder, work: Work) -> None:
        """Return only if the certificate to replace is the account's server's and shares a name with the
        order, and no other order is to replace it (RFC 9773, section 5)."""
        certificate = read_id(request.replaces or "")
        record = work.tx.certificates.by_serial(certificate.serial)
        if record is None or record.spiffe_id != self._accounts.server_of(account):
            raise malformed("expected 'replaces' to name a certificate of this account's server")
        parsed = x509.load_der_x509_certificate(record.der)
        if id_of(parsed) != certificate:
            raise malformed("expected 'replaces' to name a certificate of this server's issuer")
        if not set(dns_names_of(parsed)) & set(request.names):
            raise malformed("expected 'replaces' to name a certificate with a name of this order")
        others = work.tx.acme.replaced_by(request.replaces or "")
        if any(_is_alive(order, work) for order in others):
            raise AcmeProblem(ProblemType.ALREADY_REPLACED, "another order is to replace this certificate")


_UNFINISHED = (ChallengeStatus.PENDING, ChallengeStatus.PROCESSING)


def to_document(problem: AcmeProblem) -> bytes:
    return json.dumps(problem.document(), sort_keys=True).encode()


def dns_names_of(certificate: x509.Certificate) -> list[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.DNSName)


def _is_alive(order: Order, work: Work) -> bool:
    authorizations = work.tx.acme.authorizations_of(order.order_id)
    return status_of(order, authorizations, work.now) is not OrderStatus.INVALID


def _authorization(order: Order, name: str) -> Authorization:
    return Authorization(
        authorization_id=new_id(),
        order_id=order.order_id,
        account_id=order.account_id,
        name=name,
        status=AuthorizationStatus.PENDING,
        expires_at=order.expires_at,
    )


def _challenge(view: AuthorizationView, kind: ChallengeKind) -> Challenge:
    found = next((one for one in view.challenges if one.kind is kind), None)
    if found is None:
        raise NotFound("no such challenge of this authorization")
    return found


def _check_names(account: Account, names: tuple[str, ...]) -> None:
    others = [name for name in names if name not in account.names]
    if others:
        raise AcmeProblem(
            ProblemType.REJECTED_IDENTIFIER,
            f"expected names that an operator stated for {account.server}, got {', '.join(others)[:200]}",
            more={
                "subproblems": [
                    {
                        "type": "urn:ietf:params:acme:error:rejectedIdentifier",
                        "detail": "not stated for this account",
                        "identifier": {"type": "dns", "value": name},
                    }
                    for name in others
                ]
            },
        )
