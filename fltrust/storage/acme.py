"""ACME's objects: `fltrust.protocols.acme.state.AcmeStore` on one connection."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, func, insert, select, update

from fltrust.identity import Name, Serial
from fltrust.protocols.acme.state import (
    Account,
    AccountStatus,
    Authorization,
    AuthorizationStatus,
    Challenge,
    ChallengeKind,
    ChallengeStatus,
    Order,
    OrderStatus,
)
from fltrust.storage import acme_tables as tables

_OPEN = [OrderStatus.PENDING, OrderStatus.PROCESSING]


class Acme:
    """`AcmeStore` over the ``acme_…`` tables."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add_account(self, account: Account) -> None:
        self._connection.execute(
            insert(tables.acme_accounts).values(
                account_id=account.account_id,
                server=account.server,
                names=_list(account.names),
                credential=account.credential,
                created_at=account.created_at,
                **_changing_account(account),
            )
        )

    def put_account(self, account: Account) -> None:
        table = tables.acme_accounts
        self._connection.execute(
            update(table).where(table.c.account_id == account.account_id).values(**_changing_account(account))
        )

    def account(self, account_id: str) -> Account | None:
        table = tables.acme_accounts
        return _account(self._row(select(table).where(table.c.account_id == account_id)))

    def account_of_key(self, thumbprint: str) -> Account | None:
        table = tables.acme_accounts
        return _account(self._row(select(table).where(table.c.thumbprint == thumbprint)))

    def add_order(
        self, order: Order, authorizations: Sequence[Authorization], challenges: Sequence[Challenge]
    ) -> None:
        self._connection.execute(
            insert(tables.acme_orders).values(
                order_id=order.order_id,
                account_id=order.account_id,
                names=_list(order.names),
                created_at=order.created_at,
                expires_at=order.expires_at,
                replaces=order.replaces,
                **_changing_order(order),
            )
        )
        self._connection.execute(
            insert(tables.acme_authorizations),
            [
                {
                    "authorization_id": one.authorization_id,
                    "order_id": one.order_id,
                    "account_id": one.account_id,
                    "name": one.name,
                    "status": one.status.value,
                    "expires_at": one.expires_at,
                }
                for one in authorizations
            ],
        )
        self._connection.execute(
            insert(tables.acme_challenges),
            [
                {
                    "authorization_id": one.authorization_id,
                    "kind": one.kind.value,
                    "token": one.token,
                    **_changing_challenge(one),
                }
                for one in challenges
            ],
        )

    def put_order(self, order: Order) -> None:
        table = tables.acme_orders
        self._connection.execute(
            update(table).where(table.c.order_id == order.order_id).values(**_changing_order(order))
        )

    def order(self, order_id: str) -> Order | None:
        table = tables.acme_orders
        row = self._row(select(table).where(table.c.order_id == order_id))
        return None if row is None else _order(row)

    def orders_of(self, account_id: str, *, limit: int) -> tuple[str, ...]:
        table = tables.acme_orders
        return tuple(
            self._connection.execute(
                select(table.c.order_id)
                .where(table.c.account_id == account_id)
                .order_by(table.c.created_at.desc(), table.c.order_id)
                .limit(limit)
            ).scalars()
        )

    def count_open(self, account_id: str, *, now: datetime) -> int:
        table = tables.acme_orders
        return self._connection.execute(
            select(func.count()).where(
                table.c.account_id == account_id, table.c.status.in_(_OPEN), table.c.expires_at > now
            )
        ).scalar_one()

    def replaced_by(self, certificate: str) -> tuple[Order, ...]:
        table = tables.acme_orders
        rows = self._connection.execute(
            select(table).where(table.c.replaces == certificate).order_by(table.c.order_id)
        )
        return tuple(map(_order, rows))

    def authorization(self, authorization_id: str) -> Authorization | None:
        table = tables.acme_authorizations
        row = self._row(select(table).where(table.c.authorization_id == authorization_id))
        return None if row is None else _authorization(row)

    def authorizations_of(self, order_id: str) -> tuple[Authorization, ...]:
        table = tables.acme_authorizations
        rows = self._connection.execute(
            select(table).where(table.c.order_id == order_id).order_by(table.c.name)
        )
        return tuple(map(_authorization, rows))

    def put_authorization(self, authorization: Authorization) -> None:
        table = tables.acme_authorizations
        self._connection.execute(
            update(table)
            .where(table.c.authorization_id == authorization.authorization_id)
            .values(status=authorization.status.value)
        )

    def challenges_of(self, authorization_id: str) -> tuple[Challenge, ...]:
        table = tables.acme_challenges
        rows = self._connection.execute(
            select(table).where(table.c.authorization_id == authorization_id).order_by(table.c.kind)
        )
        return tuple(map(_challenge, rows))

    def put_challenge(self, challenge: Challenge) -> None:
        table = tables.acme_challenges
        self._connection.execute(
            update(table)
            .where(
                table.c.authorization_id == challenge.authorization_id,
                table.c.kind == challenge.kind.value,
            )
            .values(**_changing_challenge(challenge))
        )

    def _row(self, query: Select[Any]) -> Row[Any] | None:
        return self._connection.execute(query).one_or_none()


def _list(items: Sequence[str]) -> str:
    return json.dumps(list(items), separators=(",", ":"))


def _changing_account(account: Account) -> dict[str, Any]:
    return {
        "thumbprint": account.thumbprint,
        "jwk": account.jwk,
        "contacts": _list(account.contacts),
        "status": account.status.value,
    }


def _changing_order(order: Order) -> dict[str, Any]:
    return {
        "status": order.status.value,
        "csr": order.csr_der,
        "request_id": order.request_id,
        "serial": None if order.serial is None else order.serial.hex,
        "chain": order.chain_pem,
        "problem": order.problem,
    }


def _changing_challenge(challenge: Challenge) -> dict[str, Any]:
    return {
        "status": challenge.status.value,
        "validated_at": challenge.validated_at,
        "problem": challenge.problem,
    }


def _account(row: Row[Any] | None) -> Account | None:
    if row is None:
        return None
    return Account(
        account_id=row.account_id,
        server=Name(row.server),
        names=tuple(json.loads(row.names)),
        credential=row.credential,
        thumbprint=row.thumbprint,
        jwk=row.jwk,
        contacts=tuple(json.loads(row.contacts)),
        status=AccountStatus(row.status),
        created_at=row.created_at,
    )


def _order(row: Row[Any]) -> Order:
    return Order(
        order_id=row.order_id,
        account_id=row.account_id,
        names=tuple(json.loads(row.names)),
        status=OrderStatus(row.status),
        created_at=row.created_at,
        expires_at=row.expires_at,
        replaces=row.replaces,
        csr_der=row.csr,
        request_id=row.request_id,
        serial=None if row.serial is None else Serial.parse(row.serial),
        chain_pem=row.chain,
        problem=row.problem,
    )


def _authorization(row: Row[Any]) -> Authorization:
    return Authorization(
        authorization_id=row.authorization_id,
        order_id=row.order_id,
        account_id=row.account_id,
        name=row.name,
        status=AuthorizationStatus(row.status),
        expires_at=row.expires_at,
    )


def _challenge(row: Row[Any]) -> Challenge:
    return Challenge(
        authorization_id=row.authorization_id,
        kind=ChallengeKind(row.kind),
        token=row.token,
        status=ChallengeStatus(row.status),
        validated_at=row.validated_at,
        problem=row.problem,
    )
