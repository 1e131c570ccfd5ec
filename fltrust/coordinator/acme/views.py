"""ACME's objects as JSON, with the urls that they are found at."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from fltrust.coordinator.acme.orders import AuthorizationView, OrderView
from fltrust.protocols.acme.state import (
    Account,
    AuthorizationStatus,
    Challenge,
    ChallengeKind,
    OrderStatus,
)


def to_time(at: datetime) -> str:
    """RFC 3339 in whole seconds, as other ACME servers write it."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Urls:
    """Where everything is. `base` is the services port's own url, as an operator stated it."""

    def __init__(self, base: str) -> None:
        self.base = f"{base}/acme"

    def of(self, *parts: str) -> str:
        return "/".join((self.base, *parts))

    def account(self, account_id: str) -> str:
        return self.of("acct", account_id)

    def account_id(self, url: str) -> str | None:
        """The id in an account's url; None for any other url."""
        prefix = self.account("")
        rest = url[len(prefix) :]
        return rest if url.startswith(prefix) and rest.isalnum() and rest.isascii() else None

    def order(self, order_id: str) -> str:
        return self.of("order", order_id)

    def challenge(self, authorization_id: str, kind: ChallengeKind) -> str:
        return self.of("chall", authorization_id, kind.value)

    def directory(self) -> dict[str, object]:
        return {
            "newNonce": self.of("new-nonce"),
            "newAccount": self.of("new-account"),
            "newOrder": self.of("new-order"),
            "revokeCert": self.of("revoke-cert"),
            "keyChange": self.of("key-change"),
            "renewalInfo": self.of("renewal-info"),
            "meta": {"externalAccountRequired": True},
        }


def account_json(account: Account, urls: Urls) -> dict[str, object]:
    return {
        "status": account.status.value,
        "contact": list(account.contacts),
        "orders": urls.of("acct", account.account_id, "orders"),
    }


def order_json(view: OrderView, urls: Urls) -> dict[str, object]:
    order = view.order
    found: dict[str, object] = {
        "status": view.status.value,
        "expires": to_time(order.expires_at),
        "identifiers": [{"type": "dns", "value": name} for name in order.names],
        "authorizations": [urls.of("authz", one.authorization_id) for one in view.authorizations],
        "finalize": urls.of("order", order.order_id, "finalize"),
    }
    if order.replaces is not None:
        found["replaces"] = order.replaces
    if view.status is OrderStatus.VALID:
        found["certificate"] = urls.of("cert", order.order_id)
    if order.problem is not None:
        found["error"] = json.loads(order.problem)
    return found


def authorization_json(view: AuthorizationView, urls: Urls) -> dict[str, object]:
    challenges = view.challenges
    if view.status is not AuthorizationStatus.PENDING:  # RFC 8555, 7.1.4: what was tried is left
        challenges = tuple(one for one in challenges if one.validated_at or one.problem)
    return {
        "status": view.status.value,
        "expires": to_time(view.authorization.expires_at),
        "identifier": {"type": "dns", "value": view.authorization.name},
        "challenges": [challenge_json(one, urls) for one in challenges],
    }


def challenge_json(challenge: Challenge, urls: Urls) -> dict[str, object]:
    found: dict[str, object] = {
        "type": challenge.kind.value,
        "url": urls.challenge(challenge.authorization_id, challenge.kind),
        "status": challenge.status.value,
        "token": challenge.token,
    }
    if challenge.validated_at is not None:
        found["validated"] = to_time(challenge.validated_at)
    if challenge.problem is not None:
        found["error"] = json.loads(challenge.problem)
    return found
