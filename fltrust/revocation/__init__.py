"""Revocation as pure state: events by epoch in, standing out."""

from __future__ import annotations

from fltrust.revocation.events import EventKind, FeedHeartbeat, FeedItem, RevocationReason, TrustEvent
from fltrust.revocation.ports import RevocationTarget, Revoker, TrustFeed
from fltrust.revocation.state import IdentityState, Standing, TrustState

__all__ = [
    "EventKind",
    "FeedHeartbeat",
    "FeedItem",
    "IdentityState",
    "RevocationReason",
    "RevocationTarget",
    "Revoker",
    "Standing",
    "TrustEvent",
    "TrustFeed",
    "TrustState",
]
