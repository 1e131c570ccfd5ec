"""Whether an operator's word counts, at this moment of the record."""

from __future__ import annotations

from fltrust.coordinator.ledger import Work
from fltrust.errors import TokenRefused
from fltrust.identity import Role, Serial, SpiffeId
from fltrust.revocation.state import Standing


def check_granter(operator: SpiffeId | None, work: Work) -> None:
    """Return only if whoever made a token or a credential may make one now, else `TokenRefused`
    (``granter-barred``); it stays unspent. One of the machine's own, which nobody made, is good."""
    if operator is not None and not work.state.is_active(operator):
        raise TokenRefused(
            "expected a token of an operator who stands well, its maker is revoked or on hold",
            reason="granter-barred",
            hint="ask another operator for a new one",
        )


def stands_well(who: SpiffeId, serial: Serial, work: Work) -> bool:
    """Whether this operator, and the certificate that it decided with, are neither revoked nor on hold.

    An operator that was enrolled anew since has another certificate, and the earlier word counts no more.
    """
    if who.role is not Role.OPERATOR or not work.state.is_active(who):
        return False
    record = work.tx.certificates.by_serial(serial)
    return (
        record is not None
        and record.spiffe_id == who
        and work.state.serial_standing(serial) is Standing.ACTIVE
        and work.state.key_standing(record.key_id) is Standing.ACTIVE
    )
