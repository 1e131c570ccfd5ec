"""ACME's objects on every database."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

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
    status_of,
)
from fltrust.storage import open_store

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
ACCOUNT = Account(
    account_id="a1",
    server=Name("model"),
    names=("a.example", "b.example"),
    credential="5c0e",
    thumbprint="t1",
    jwk=b"{}",
    contacts=("mailto:a@b.example",),
    status=AccountStatus.VALID,
    created_at=NOW,
)
ORDER = Order(
    order_id="o1",
    account_id="a1",
    names=("a.example", "b.example"),
    status=OrderStatus.PENDING,
    created_at=NOW,
    expires_at=NOW + timedelta(days=1),
    replaces="x.y",
)
AUTHORIZATIONS = tuple(
    Authorization(
        authorization_id=f"z{number}",
        order_id="o1",
        account_id="a1",
        name=name,
        status=AuthorizationStatus.PENDING,
        expires_at=ORDER.expires_at,
    )
    for number, name in enumerate(ORDER.names)
)
CHALLENGES = tuple(
    Challenge(authorization_id=one.authorization_id, kind=kind, token="t", status=ChallengeStatus.PENDING)
    for one in AUTHORIZATIONS
    for kind in ChallengeKind
)


def test_objects_come_back_as_they_were_put(database_url: str) -> None:
    with open_store(database_url) as store:
        with store.writing() as tx:
            tx.acme.add_account(ACCOUNT)
            tx.acme.add_order(ORDER, AUTHORIZATIONS, CHALLENGES)
        with store.reading() as tx:
            assert tx.acme.account("a1") == tx.acme.account_of_key("t1") == ACCOUNT
            assert tx.acme.order("o1") == ORDER
            assert tx.acme.authorizations_of("o1") == AUTHORIZATIONS
            assert set(tx.acme.challenges_of("z0")) == set(CHALLENGES[:2])
            assert tx.acme.orders_of("a1", limit=9) == ("o1",)
            assert tx.acme.count_open("a1", now=NOW) == 1
            assert tx.acme.count_open("a1", now=ORDER.expires_at) == 0
            assert tx.acme.replaced_by("x.y") == (ORDER,)
            assert (tx.acme.account("?"), tx.acme.order("?"), tx.acme.authorization("?")) == (None,) * 3
        done = replace(
            ORDER,
            status=OrderStatus.VALID,
            csr_der=b"c",
            request_id="r",
            serial=Serial(7),
            chain_pem=b"p",
            problem=b"{}",
        )
        moved = replace(ACCOUNT, thumbprint="t2", contacts=(), status=AccountStatus.DEACTIVATED)
        passed = replace(CHALLENGES[0], status=ChallengeStatus.VALID, validated_at=NOW)
        with store.writing() as tx:
            tx.acme.put_order(done)
            tx.acme.put_account(moved)
            tx.acme.put_challenge(passed)
            tx.acme.put_authorization(replace(AUTHORIZATIONS[0], status=AuthorizationStatus.VALID))
        with store.reading() as tx:
            assert tx.acme.order("o1") == done
            assert tx.acme.account_of_key("t2") == moved
            assert tx.acme.account_of_key("t1") is None
            assert passed in tx.acme.challenges_of("z0")
            assert tx.acme.challenges_of("z1") == tuple(sorted(CHALLENGES[2:], key=lambda one: one.kind))
            assert [one.status for one in tx.acme.authorizations_of("o1")] == ["valid", "pending"]


def test_a_key_and_a_credential_have_one_account(database_url: str) -> None:
    with open_store(database_url) as store:
        with store.writing() as tx:
            tx.acme.add_account(ACCOUNT)
        for again in (
            replace(ACCOUNT, account_id="a2", credential="other"),
            replace(ACCOUNT, account_id="a3", thumbprint="other"),
        ):
            with pytest.raises(Exception, match=r"(?i)unique|database"), store.writing() as tx:
                tx.acme.add_account(again)


def test_an_order_is_ready_when_each_of_its_names_is_proved_by_its_own() -> None:
    valid, pending = AuthorizationStatus.VALID, AuthorizationStatus.PENDING

    def status(*found: Authorization) -> str:
        return status_of(ORDER, found, NOW)

    first, second = AUTHORIZATIONS
    proved = replace(first, status=valid)
    assert status(first, second) == "pending"
    assert status(proved, second) == "pending"
    assert status(proved, replace(second, status=valid)) == "ready"
    # One name, proved twice, is not two names; nor is another order's authorization one of this order's.
    assert status(proved, replace(proved, authorization_id="z9")) == "invalid"
    assert status(proved, replace(second, status=valid, order_id="o2")) == "invalid"
    for bad in ("invalid", "deactivated", "expired"):
        assert status(proved, replace(second, status=AuthorizationStatus(bad))) == "invalid"
    assert status() == "invalid"
    late = [replace(one, status=valid) for one in AUTHORIZATIONS]
    assert status_of(ORDER, late, ORDER.expires_at) == "invalid"
    expired = replace(second, status=valid, expires_at=NOW)
    assert status(proved, expired) == "invalid"
    assert pending in {one.status for one in AUTHORIZATIONS}
