"""What the rest of the house needs from the one who keeps the trust feed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from fltrust.identity import Epoch, KeyId, Name, Role, RunId, Serial, SpiffeId
from fltrust.revocation.events import FeedItem, RevocationReason, TrustEvent


class TrustFeed(Protocol):
    """The feed of trust events, as one caller may read it."""

    def watch(self, after: Epoch) -> Iterator[FeedItem]:
        """Yield every event after `after`, in order, without a gap; heartbeats when idle.

        Blocks between items. Ends, or raises `CoordinatorUnavailable`, when the
        feed is cut; the watcher resumes from the last epoch it applied. Closing
        the iterator ends the watch.
        """
        ...


@dataclass(frozen=True, slots=True)
class RevocationTarget:
    """Whom or what to revoke, hold or release: exactly one field is set."""

    name: tuple[Role, Name] | None = None
    serial: Serial | None = None
    key: KeyId | None = None
    run: RunId | None = None
    """Every participant in the cohorts of a run."""
    foreign: SpiffeId | None = None
    """A participant of another trust domain that was admitted here."""

    def __post_init__(self) -> None:
        if sum(x is not None for x in (self.name, self.serial, self.key, self.run, self.foreign)) != 1:
            raise ValueError("expected exactly one of name, serial, key, run and foreign")


class Revoker(Protocol):
    """Changes standing. Each call returns only after its events are durable."""

    def revoke(
        self,
        target: RevocationTarget,
        *,
        reason: RevocationReason,
        compromised_since: datetime | None = None,
    ) -> tuple[TrustEvent, ...]: ...

    def hold(self, target: RevocationTarget, *, reason: RevocationReason) -> tuple[TrustEvent, ...]: ...

    def release(self, target: RevocationTarget) -> tuple[TrustEvent, ...]: ...
