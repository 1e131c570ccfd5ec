"""ACME's objects and what can become of them (RFC 8555, section 7.1.6), pure; and the store that keeps them.

    order    pending ──all authorizations valid──► ready ──finalize──► processing ──issued──► valid
                └──one invalid, expired──► invalid ◄────refused, denied───┘
    challenge  pending ──answered──► processing ──► valid | invalid

An account is bound to one server name for good: the one that its external account binding was made for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from fltrust.identity import Name, Serial


class AccountStatus(StrEnum):
    VALID = "valid"
    DEACTIVATED = "deactivated"
    """By its holder."""


class OrderStatus(StrEnum):
    PENDING = "pending"
    READY = "ready"
    PROCESSING = "processing"
    VALID = "valid"
    INVALID = "invalid"


class AuthorizationStatus(StrEnum):
    PENDING = "pending"
    VALID = "valid"
    INVALID = "invalid"
    DEACTIVATED = "deactivated"
    EXPIRED = "expired"


class ChallengeStatus(StrEnum):
    PENDING = "pending"
    PROCESSING = "processing"
    VALID = "valid"
    INVALID = "invalid"


class ChallengeKind(StrEnum):
    HTTP_01 = "http-01"
    TLS_ALPN_01 = "tls-alpn-01"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """`names` are the DNS names that an operator stated for the server; no order goes beyond them."""

    account_id: str
    server: Name
    names: tuple[str, ...]
    credential: str
    """The credential that its binding was made with."""
    thumbprint: str
    jwk: bytes
    """The account's public key, as canonical JWK."""
    contacts: tuple[str, ...]
    status: AccountStatus
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    order_id: str
    account_id: str
    names: tuple[str, ...]
    status: OrderStatus
    """As kept: whether a pending one is ready is its authorizations' to say (`status_of`)."""
    created_at: datetime
    expires_at: datetime
    replaces: str | None = None
    """The certificate that this order's is to replace (RFC 9773, section 5)."""
    csr_der: bytes | None = None
    request_id: str | None = None
    """Of the registration authority, while operators decide."""
    serial: Serial | None = None
    chain_pem: bytes | None = None
    problem: bytes | None = None
    """What ended it, as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorization:
    """Proof of control over one name, for one order alone: none is ever used twice."""

    authorization_id: str
    order_id: str
    account_id: str
    name: str
    status: AuthorizationStatus
    expires_at: datetime

    def status_at(self, now: datetime) -> AuthorizationStatus:
        """The status, which time alone may have ended."""
        is_open = self.status in (AuthorizationStatus.PENDING, AuthorizationStatus.VALID)
        return AuthorizationStatus.EXPIRED if is_open and now >= self.expires_at else self.status


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    authorization_id: str
    kind: ChallengeKind
    token: str
    status: ChallengeStatus
    validated_at: datetime | None = None
    problem: bytes | None = None


def status_of(order: Order, authorizations: Sequence[Authorization], now: datetime) -> OrderStatus:
    """The status of an order at `now`: ready when each of its names has its own valid authorization.

    Every name is looked for, by name: an order with two names and one name's authorization twice is pending.
    """
    if order.status is not OrderStatus.PENDING:
        return order.status
    if now >= order.expires_at:
        return OrderStatus.INVALID
    statuses = {one.name: one.status_at(now) for one in authorizations if one.order_id == order.order_id}
    found = [statuses.get(name) for name in order.names]
    if not found or any(status not in _LIVE for status in found):
        return OrderStatus.INVALID
    if all(status is AuthorizationStatus.VALID for status in found):
        return OrderStatus.READY
    return OrderStatus.PENDING


_LIVE = frozenset({AuthorizationStatus.PENDING, AuthorizationStatus.VALID})


class AcmeStore(Protocol):
    """ACME's objects, inside the caller's transaction. Nothing is ever deleted."""

    def add_account(self, account: Account) -> None: ...

    def put_account(self, account: Account) -> None:
        """Write what of an account can change: key, contacts, status."""
        ...

    def account(self, account_id: str) -> Account | None: ...

    def account_of_key(self, thumbprint: str) -> Account | None: ...

    def add_order(
        self, order: Order, authorizations: Sequence[Authorization], challenges: Sequence[Challenge]
    ) -> None: ...

    def put_order(self, order: Order) -> None:
        """Write what of an order can change: status, request, certificate, what ended it."""
        ...

    def order(self, order_id: str) -> Order | None: ...

    def orders_of(self, account_id: str, *, limit: int) -> tuple[str, ...]:
        """Ids of an account's newest orders."""
        ...

    def count_open(self, account_id: str, *, now: datetime) -> int:
        """How many orders of an account are pending or processing and have not expired."""
        ...

    def replaced_by(self, certificate: str) -> tuple[Order, ...]:
        """Orders that were to replace this certificate."""
        ...

    def authorization(self, authorization_id: str) -> Authorization | None: ...

    def authorizations_of(self, order_id: str) -> tuple[Authorization, ...]: ...

    def put_authorization(self, authorization: Authorization) -> None:
        """Write its status."""
        ...

    def challenges_of(self, authorization_id: str) -> tuple[Challenge, ...]: ...

    def put_challenge(self, challenge: Challenge) -> None:
        """Write its status, when it was validated and what ended it."""
        ...
