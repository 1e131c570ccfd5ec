"""What was used once is remembered for good, and only if the transaction committed."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

from fltrust.storage import open_store

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def test_evidence_is_spent_once_by_kind_and_not_by_a_transaction_that_is_undone(database_url: str) -> None:
    with open_store(database_url) as store:
        with contextlib.suppress(ZeroDivisionError), store.writing() as tx:
            assert tx.tokens.spend_once("oidc", bytes(32), now=NOW)
            raise ZeroDivisionError
        with store.writing() as tx:
            assert tx.tokens.spend_once("oidc", bytes(32), now=NOW)
            assert not tx.tokens.spend_once("oidc", bytes(32), now=NOW)
            assert tx.tokens.spend_once("other", bytes(32), now=NOW)
    with open_store(database_url) as store, store.writing() as tx:
        assert not tx.tokens.spend_once("oidc", bytes(32), now=NOW)
