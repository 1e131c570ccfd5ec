"""Durable state over SQLAlchemy Core: SQLite embedded, PostgreSQL by URL; one code path."""

from __future__ import annotations

from fltrust.storage.store import CommitStep, Store, Transaction, open_store

__all__ = ["CommitStep", "Store", "Transaction", "open_store"]
