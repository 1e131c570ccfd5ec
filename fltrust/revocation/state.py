"""Who stands how, at an epoch: a pure fold over trust events.

The same events give the same answers everywhere: at the coordinator, in the
agent, in front of the SuperLink and in the ServerApp.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from fltrust.clock import BACKDATE
from fltrust.errors import CertificateRefused, Conflict, Malformed, Refusal, Revoked
from fltrust.identity import CaKeyId, Epoch, KeyId, Role, RunId, Serial, SpiffeId, TrustDomain
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
    # What a trust domain says is about its own certificates and CAs, whoever else has one of that number.
    _barred_serials: dict[tuple[TrustDomain, Serial], Standing] = field(default_factory=dict)
    _barred_keys: dict[tuple[TrustDomain, KeyId], Standing] = field(default_factory=dict)
    _barred_issuers: dict[tuple[TrustDomain | None, CaKeyId], Epoch] = field(default_factory=dict)
    _domains: set[TrustDomain] = field(default_factory=set)
    _held_domains: dict[TrustDomain, dict[SpiffeId, IdentityState]] = field(default_factory=dict)
    """Foreign domains on hold, and how their identities stand by themselves."""
    _admitted_anew: dict[SpiffeId, datetime] = field(default_factory=dict)
    """Foreign identities that were revoked here and admitted again: what was certified before stays out."""

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
            case EventKind.DOMAIN_HELD:
                self._hold_domain(event)
            case EventKind.DOMAIN_RELEASED:
                self._release_domain(event)
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
        6. Of a foreign identity that was revoked here and admitted anew, certificates from before are
           refused: they are not on record here, so the revocation could not name them.
        """
        who = certificate.spiffe_id
        for issuer in () if is_on_record else certificate.issuers:  # 1
            if self.is_issuer_revoked(issuer, who.domain):
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
        barred_by = self._barred_serials.get((who.domain, certificate.serial)) or self._barred_keys.get(
            (who.domain, certificate.key_id)
        )
        if barred_by is not None:  # 5
            _refuse_unless_active(barred_by, f"certificate {certificate.serial.hex} of {who}", self.epoch)
        since = self._admitted_anew.get(who)  # 6
        if since is not None and certificate.not_before + BACKDATE < since.replace(microsecond=0):
            raise Revoked(
                f"certificate {certificate.serial.hex} of {who} is from before it was admitted anew",
                reason=Refusal.REVOKED,
                hint="its agent gets another one from its own coordinator",
            )

    def is_issuer_revoked(self, issuer: CaKeyId, domain: TrustDomain) -> bool:
        """Whether nothing of this domain that leads through this CA's key is good any more."""
        barred = self._barred_issuers
        return bool(barred) and ((domain, issuer) in barred or (None, issuer) in barred)

    def is_domain_held(self, domain: TrustDomain) -> bool:
        """Whether nobody of this foreign domain is let in."""
        return domain in self._held_domains

    def own(self, who: SpiffeId) -> IdentityState | None:
        """How an identity stands by itself, whatever its domain does; None where it was never enrolled."""
        return self._own(who)

    def own_standing(self, who: SpiffeId) -> Standing | None:
        known = self._own(who)
        return None if known is None else known.standing

    def standing_of_serial(self, domain: TrustDomain, serial: Serial) -> Standing:
        """How a certificate of this domain stands, by what was said of it alone."""
        return self._barred_serials.get((domain, serial), Standing.ACTIVE)

    def standing_of_key(self, domain: TrustDomain, key: KeyId) -> Standing:
        """How a certificate key of this domain stands, by what was said of it alone."""
        return self._barred_keys.get((domain, key), Standing.ACTIVE)

    def is_active(self, who: SpiffeId) -> bool:
        known = self.identities.get(who)
        return known is not None and known.standing is Standing.ACTIVE

    def serial_standing(self, serial: Serial) -> Standing:
        """How a certificate itself stands, whatever its identity does."""
        return _worst(self._barred_serials.get((domain, serial)) for domain in self._domains)

    def key_standing(self, key: KeyId) -> Standing:
        """How a certificate key itself stands, whatever its identity does."""
        return _worst(self._barred_keys.get((domain, key)) for domain in self._domains)

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
        known = self._own(who)
        is_foreign = event.actor is not None and event.actor.domain != who.domain
        if is_foreign and known is not None and known.standing is Standing.REVOKED:
            self._admitted_anew[who] = event.at
        self._stand(IdentityState(who, Standing.ACTIVE, event.epoch, node_key))

    def _bar(self, event: TrustEvent, standing: Standing) -> None:
        who = _subject_of(event)
        if event.identity_wide:
            known = self._own(who)
            if known is None:
                raise Malformed(f"epoch {event.epoch} bars {who}, which was never enrolled")
            if not (known.standing is Standing.REVOKED and standing is Standing.HELD):
                self._stand(
                    IdentityState(who, standing, event.epoch, known.node_key, event.compromised_since)
                )
        self._domains.add(who.domain)
        for serial in event.serials:
            if self._barred_serials.get((who.domain, serial)) is not Standing.REVOKED:
                self._barred_serials[who.domain, serial] = standing
        for key in event.keys:
            if self._barred_keys.get((who.domain, key)) is not Standing.REVOKED:
                self._barred_keys[who.domain, key] = standing

    def _bar_issuer(self, event: TrustEvent) -> None:
        if event.issuer is None:
            raise Malformed(f"expected a CA in the {event.kind} event of epoch {event.epoch}")
        self._barred_issuers.setdefault((event.domain, event.issuer), event.epoch)

    def _release(self, event: TrustEvent) -> None:
        """End a hold; what was revoked stays revoked."""
        who = _subject_of(event)
        known = self._own(who)
        if event.identity_wide and known is not None and known.standing is Standing.HELD:
            self._stand(IdentityState(who, Standing.ACTIVE, event.epoch, known.node_key))
        for serial in event.serials:
            if self._barred_serials.get((who.domain, serial)) is Standing.HELD:
                del self._barred_serials[who.domain, serial]
        for key in event.keys:
            if self._barred_keys.get((who.domain, key)) is Standing.HELD:
                del self._barred_keys[who.domain, key]

    def _hold_domain(self, event: TrustEvent) -> None:
        domain = _domain_of(event)
        if domain in self._held_domains:
            return
        own = {who: known for who, known in self.identities.items() if who.domain == domain}
        self._held_domains[domain] = own
        for known in own.values():
            self._show(known, since=event.epoch)

    def _release_domain(self, event: TrustEvent) -> None:
        for who, known in self._held_domains.pop(_domain_of(event), {}).items():
            self.identities[who] = known

    def _own(self, who: SpiffeId) -> IdentityState | None:
        """How an identity stands by itself, whatever its domain does."""
        held = self._held_domains.get(who.domain)
        return self.identities.get(who) if held is None else held.get(who)

    def _stand(self, own: IdentityState) -> None:
        held = self._held_domains.get(own.spiffe_id.domain)
        if held is None:
            self.identities[own.spiffe_id] = own
        else:
            held[own.spiffe_id] = own
            self._show(own, since=own.since)

    def _show(self, own: IdentityState, *, since: Epoch) -> None:
        """Of a domain on hold, whoever would stand well is on hold."""
        held = (
            own if own.standing is not Standing.ACTIVE else replace(own, standing=Standing.HELD, since=since)
        )
        self.identities[own.spiffe_id] = held


def _worst(found: Iterable[Standing | None]) -> Standing:
    standings = set(found)
    for standing in (Standing.REVOKED, Standing.HELD):
        if standing in standings:
            return standing
    return Standing.ACTIVE


def _domain_of(event: TrustEvent) -> TrustDomain:
    if event.domain is None:
        raise Malformed(f"expected a domain in the {event.kind} event of epoch {event.epoch}")
    return event.domain


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
