"""Giving one's own certificate up: what its holder may do, and nobody has to approve."""

from __future__ import annotations

from fltrust.coordinator import standing
from fltrust.coordinator.authority import Authority
from fltrust.coordinator.ledger import Work
from fltrust.coordinator.session import Caller
from fltrust.errors import NotFound
from fltrust.identity import Serial, SpiffeId
from fltrust.revocation.events import RevocationReason, TrustEvent


def give_up(authority: Authority, caller: Caller, serial: Serial, *, reason: RevocationReason) -> TrustEvent:
    """Revoke a certificate of the caller's own, durably; one that is revoked gives its event again.

    The caller may do it as long as it may renew (`Session.check_own`): its certificate has not run out and
    it stands well, once more under the lock. `NotFound` for a serial that is nobody's, or somebody else's.
    """
    authority.session(caller).check_own()
    with authority.ledger.writing() as work:
        work.state.judge(caller.certificate)
        return _revoke_own(work, caller.spiffe_id, serial, reason)


def take_back(authority: Authority, who: SpiffeId, serial: Serial) -> TrustEvent:
    """Revoke a certificate that its holder refused when it was handed over."""
    with authority.ledger.writing() as work:
        return _revoke_own(work, who, serial, RevocationReason.CESSATION_OF_OPERATION)


def _revoke_own(work: Work, who: SpiffeId, serial: Serial, reason: RevocationReason) -> TrustEvent:
    record = work.tx.certificates.by_serial(serial)
    if record is None or record.spiffe_id != who:
        raise NotFound(f"no certificate of {who} with serial {serial.hex} was issued here")
    subject = standing.Subject(who, whole=False, serials=(serial,))
    return standing.revoke(subject, work, actor=who, reason=reason, compromised_since=None)
