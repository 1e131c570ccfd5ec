"""Where the trust feed is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fltrust.identity import Epoch, SpiffeId
from fltrust.revocation.events import TrustEvent


class EventLog(Protocol):
    """Trust events by epoch, kept for good. Appending is durable when the transaction commits."""

    @property
    def head(self) -> Epoch:
        """The newest epoch. In a writing transaction it stays the newest until the commit."""
        ...

    def append_all(self, events: Sequence[TrustEvent]) -> None:
        """Append events in the order of their epochs, without a gap, as `append` does one by one."""
        ...

    def append(self, event: TrustEvent) -> None:
        """Write the event of the next epoch; any other epoch raises `Conflict`."""
        ...

    def read(self, after: Epoch, *, limit: int | None = None) -> tuple[TrustEvent, ...]:
        """Events after an epoch, in order, without a gap."""
        ...

    def about(self, who: SpiffeId) -> tuple[TrustEvent, ...]:
        """Every event whose subject is `who`, in order."""
        ...
