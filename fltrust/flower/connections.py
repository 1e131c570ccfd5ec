"""Every live connection of the Fleet listener: whose it is, how many there may be, and which must go."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Protocol

from fltrust.errors import CertificateRefused, FltrustError, LimitExceeded, Revoked
from fltrust.eventlog import EventLog
from fltrust.flower.counters import Counters
from fltrust.identity import SpiffeId
from fltrust.pki.types import VerifiedCertificate
from fltrust.revocation.view import TrustView


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """How many connections may be open at once, in all and by one participant. Those that were refused
    are counted apart: they take no room of anybody's, and beyond `refused` they end without an answer."""

    total: int = 4096
    per_participant: int = 32
    refused: int = 256


@dataclass(frozen=True, slots=True)
class Peer:
    """Whose connection it is, or why it may carry nothing."""

    certificate: VerifiedCertificate | None
    refusal: FltrustError | None = None

    @property
    def name(self) -> str:
        return "unknown" if self.certificate is None else str(self.certificate.spiffe_id)


class Connection(Protocol):
    """A live connection, as the registry knows it."""

    peer: Peer

    def abort(self) -> None: ...


class ConnectionRegistry:
    """Every live connection by its participant, the refused apart. Of the event loop; `sweep_soon` of any."""

    def __init__(
        self, view: TrustView, *, limits: ConnectionLimits, counters: Counters, events: EventLog
    ) -> None:
        self._view = view
        self._limits = limits
        self._counters = counters
        self._events = events
        self._connections: set[Connection] = set()
        self._refused: set[Connection] = set()
        self._by_identity: Counter[SpiffeId] = Counter()

    def admit(self, certificate: VerifiedCertificate) -> None:
        """Raise `LimitExceeded` where one more connection would be too many."""
        if len(self._connections) >= self._limits.total:
            raise LimitExceeded(f"expected at most {self._limits.total} connections to the Fleet API")
        if self._by_identity[certificate.spiffe_id] >= self._limits.per_participant:
            raise LimitExceeded(
                f"expected at most {self._limits.per_participant} connections of {certificate.spiffe_id}"
            )

    def add(self, connection: Connection) -> None:
        """Count a connection in; one that was refused is aborted if there are too many such already."""
        certificate = connection.peer.certificate
        if certificate is not None:
            self._connections.add(connection)
            self._by_identity[certificate.spiffe_id] += 1
        elif len(self._refused) < self._limits.refused:
            self._refused.add(connection)
        else:
            connection.abort()

    def discard(self, connection: Connection) -> None:
        self._refused.discard(connection)
        if connection not in self._connections:
            return
        self._connections.discard(connection)
        certificate = connection.peer.certificate
        if certificate is not None:
            self._by_identity[certificate.spiffe_id] -= 1
            self._by_identity += Counter()  # drops zeros

    def sweep(self) -> int:
        """Abort every connection whose certificate does not stand well now; returns how many."""
        cut = 0
        for connection in tuple(self._connections):
            certificate = connection.peer.certificate
            if certificate is None:
                continue
            try:
                self._view.judge(certificate)
            except (Revoked, CertificateRefused) as refusal:
                connection.abort()
                cut += 1
                self._counters.add("connections.cut")
                self._events.emit(
                    "connection-cut",
                    participant=str(certificate.spiffe_id),
                    serial=certificate.serial.hex,
                    reason=refusal.reason,
                )
        return cut

    def sweep_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have the loop sweep next; may be called from any thread, also after the loop has ended."""
        try:
            loop.call_soon_threadsafe(self.sweep)
        except RuntimeError:
            return  # the loop is closed, and every connection with it

    def __len__(self) -> int:
        return len(self._connections) + len(self._refused)
