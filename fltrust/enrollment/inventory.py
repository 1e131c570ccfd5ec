"""The inventory: everybody in the record, with what an operator asks about them, and filters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from fltrust.enrollment.types import Enrollment
from fltrust.identity import Role, RunId, SpiffeId


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundMark:
    """A sealed round that admitted an update."""

    run_id: RunId
    step: int
    at: datetime
    """When the update was signed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InventoryEntry:
    """One identity. `last_seen` is the last call or renewal, to the minute."""

    enrollment: Enrollment
    last_seen: datetime | None
    last_round: RoundMark | None
    claims: Mapping[str, str] = field(default_factory=dict)
    live_certificates: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class InventoryFilter:
    """What an entry must be; what is left out lets everybody through. All that is given must hold."""

    role: Role | None = None
    standing: str | None = None
    evidence: str | None = None
    prefix: str = ""
    """The name begins with it."""
    expires_by: datetime | None = None
    """Its newest certificate has run out, or will, by then; so has one who has none."""
    unseen_since: datetime | None = None
    no_round_since: datetime | None = None

    def admits(self, entry: InventoryEntry) -> bool:
        """Whether all that is given holds of the entry."""
        found, who = entry.enrollment, entry.enrollment.spiffe_id
        ends = found.certificate_not_after
        return (
            (self.role is None or who.role is self.role)
            and (self.standing is None or found.standing == self.standing)
            and (self.evidence is None or found.evidence == self.evidence)
            and (who.name or "").startswith(self.prefix)
            and (self.expires_by is None or ends is None or ends <= self.expires_by)
            and _is_before(entry.last_seen, self.unseen_since)
            and _is_before(None if entry.last_round is None else entry.last_round.at, self.no_round_since)
        )


def _is_before(at: datetime | None, since: datetime | None) -> bool:
    return since is None or at is None or at < since


class SightingStore(Protocol):
    """When identities were last seen, inside the caller's transaction."""

    def put(self, seen: Mapping[SpiffeId, datetime]) -> None:
        """Write these times, in place of earlier ones."""
        ...

    def all(self) -> dict[SpiffeId, datetime]: ...

    def last_rounds(self) -> dict[SpiffeId, RoundMark]:
        """The newest sealed round that admitted an update of each participant."""
        ...
