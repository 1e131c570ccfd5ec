"""Who stands how, at an epoch: a pure fold over trust events.

The same events give the same answers everywhere: at the coordinator, in the
agent, in front of the SuperLink and in the ServerApp.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from fltrust.errors import CertificateRefused, Conflict, Malformed, Refusal, Revoked
from fltrust.identity import CaKeyId, Epoch, KeyId, Role, RunId, Serial, SpiffeId
from fltrust.revocation.events import EventKind, TrustEvent

if TYPE_CHECKING:
    from fltrust.pki.types import VerifiedCertificate


class Standing(StrEnum):
    ACTIVE = "active"
    HELD = "held"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class IdentityState:
    """How one enrolled identity stands; `since` is the epoch of the last change."""

    spiffe_id: SpiffeId
    standing: Standing
    since: Epoch
    node_key: KeyId | None
    compromised_since: datetime | None = None


@dataclass(slots=True)
class TrustState:
    """Everything that the trust feed has said up to `epoch`. Unknown is no."""

    epoch: Epoch = field(default_factory=lambda: Epoch(0))
    identities: dict[SpiffeId, IdentityState] = field(default_factory=dict)
    open_runs: set[RunId] = field(default_factory=set)
    _run_owners: dict[RunId, SpiffeId] = field(default_factory=dict)
    _barred_serials: dict[Serial, Standing] = field(default_factory=dict)
    _barred_keys: dict[KeyId, Standing] = field(default_factory=dict)
    _barred_issuers: dict[CaKeyId, Epoch] = field(default_factory=dict)

    @classmethod
    def replay(cls, events: Iterable[TrustEvent]) -> TrustState:
        state = cls()
        for event in events:
            state.apply(event)
        return state

    def apply(self, event: TrustEvent) -> None:
        """Take the next epoch in. A gap or a repetition raises `Conflict` and changes nothing."""
        if event.epoch != self.epoch.next():
            raise Conflict(
                f"expected epoch {self.epoch.next()} of the trust feed, got {event.epoch}",
                reason="epoch-gap",
                hint="resume the watch from the last epoch applied",
            )
        match event.kind:
            case EventKind.ENROLLED:
                self._enroll(event)
            case EventKind.REVOKED:
                self._bar(event, Standing.REVOKED)
            case EventKind.HELD:
                self._bar(event, Standing.HELD)
            case EventKind.RELEASED:
                self._release(event)
            case EventKind.RUN_OPENED:
                self._open(event)
            case EventKind.RUN_CLOSED:
                self.open_runs.discard(_run_of(event))
                self._run_owners.pop(_run_of(event), None)
            case EventKind.ISSUER_REVOKED:
                self._bar_issuer(event)
            case EventKind.BUNDLE_CHANGED | EventKind.REDACTED:
                pass
        self.epoch = event.epoch

    def judge(self, certificate: VerifiedCertificate, *, is_on_record: bool = False) -> None:
        """Raise unless the holder of this certificate stands well at `epoch`.

        1. Whoever a revoked CA vouches for is refused (``issuer-revoked``), the coordinator included;
           unless the caller found this very certificate on record (`is_on_record`), so that it does
           not rest on the CA's word.
        2. The coordinator's own identity is known by its path alone.
        3. An identity that was never enrolled is refused (unknown is no).
        4. A revoked or held identity is refused.
        5. A revoked or held certificate or key is refused, also after its
           identity was enrolled anew.
        """
        who = certificate.spiffe_id
        for issuer in () if is_on_record else certificate.issuers:  # 1
            if issuer in self._barred_issuers:
                raise CertificateRefused(
                    f"the CA {issuer} that vouches for {who} is revoked as of epoch {self.epoch}",
                    reason=Refusal.ISSUER_REVOKED,
                    hint="get a certificate of the CA in force: an agent does so by itself",
                )
        if who.role is Role.COORDINATOR:  # 2
            return
        known = self.identities.get(who)
        if known is None:  # 3
            raise CertificateRefused(
                f"{who} is not enrolled as of epoch {self.epoch}",
                reason=Refusal.UNKNOWN_IDENTITY,
                hint="create a join token for it and run 'fltrust join' at its site",
            )
        _refuse_unless_active(known.standing, f"{who}", self.epoch)  # 4
        barred_by = self._barred_serials.get(certificate.serial) or self._barred_keys.get(certificate.key_id)
        if barred_by is not None:  # 5
            _refuse_unless_active(barred_by, f"certificate {certificate.serial.hex} of {who}", self.epoch)

    def is_issuer_revoked(self, issuer: CaKeyId) -> bool:
        """Whether nothing that leads through this CA's key is good any more."""
        return issuer in self._barred_issuers

    def is_active(self, who: SpiffeId) -> bool:
        known = self.identities.get(who)
        return known is not None and known.standing is Standing.ACTIVE

    def serial_standing(self, serial: Serial) -> Standing:
        """How a certificate itself stands, whatever its identity does."""
        return self._barred_serials.get(serial, Standing.ACTIVE)

    def key_standing(self, key: KeyId) -> Standing:
        """How a certificate key itself stands, whatever its identity does."""
        return self._barred_keys.get(key, Standing.ACTIVE)

    def run_owner(self, run_id: RunId) -> SpiffeId | None:
        """The aggregator that opened this run, while it is open; None where that is not known."""
        return self._run_owners.get(run_id)

    def participant_of(self, node_key: KeyId) -> IdentityState | None:
        """The participant that a Flower node key was enrolled for, whatever its standing."""
        for state in self.identities.values():
            if state.node_key == node_key:
                return state
        return None

    def _open(self, event: TrustEvent) -> None:
        run_id = _run_of(event)
        self.open_runs.add(run_id)
        if event.actor is not None:
            self._run_owners[run_id] = event.actor

    def _enroll(self, event: TrustEvent) -> None:
        who = _subject_of(event)
        node_key = None if event.node_key is None else KeyId.of_spki(event.node_key)
        self.identities[who] = IdentityState(who, Standing.ACTIVE, event.epoch, node_key)

    def _bar(self, event: TrustEvent, standing: Standing) -> None:
        who = _subject_of(event)
        if event.identity_wide:
            known = self.identities.get(who)
            if known is None:
                raise Malformed(f"epoch {event.epoch} bars {who}, which was never enrolled")
            if not (known.standing is Standing.REVOKED and standing is Standing.HELD):
                self.identities[who] = IdentityState(
                    who, standing, event.epoch, known.node_key, event.compromised_since
                )
        for serial in event.serials:
            if self._barred_serials.get(serial) is not Standing.REVOKED:
                self._barred_serials[serial] = standing
        for key in event.keys:
            if self._barred_keys.get(key) is not Standing.REVOKED:
                self._barred_keys[key] = standing

    def _bar_issuer(self, event: TrustEvent) -> None:
        if event.issuer is None:
            raise Malformed(f"expected a CA in the {event.kind} event of epoch {event.epoch}")
        self._barred_issuers.setdefault(event.issuer, event.epoch)

    def _release(self, event: TrustEvent) -> None:
        """End a hold; what was revoked stays revoked."""
        who = _subject_of(event)
        known = self.identities.get(who)
        if event.identity_wide and known is not None and known.standing is Standing.HELD:
            self.identities[who] = IdentityState(who, Standing.ACTIVE, event.epoch, known.node_key)
        for serial in event.serials:
            if self._barred_serials.get(serial) is Standing.HELD:
                del self._barred_serials[serial]
        for key in event.keys:
            if self._barred_keys.get(key) is Standing.HELD:
                del self._barred_keys[key]


def _refuse_unless_active(standing: Standing, what: str, epoch: Epoch) -> None:
    if standing is Standing.HELD:
        raise Revoked(f"{what} is on hold as of epoch {epoch}", reason=Refusal.HELD)
    if standing is not Standing.ACTIVE:
        raise Revoked(f"{what} is revoked as of epoch {epoch}", reason=Refusal.REVOKED)


def _subject_of(event: TrustEvent) -> SpiffeId:
    if event.subject is None:
        raise Malformed(f"expected a subject in the {event.kind} event of epoch {event.epoch}")
    return event.subject


def _run_of(event: TrustEvent) -> RunId:
    if event.run_id is None:
        raise Malformed(f"expected a run in the {event.kind} event of epoch {event.epoch}")
    return event.run_id
