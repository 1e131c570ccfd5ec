"""Names that are opened for an account, which then asks for their certificates (ACME).

Opening is the enrollment: it spends an operator's credential, takes an epoch, and can take over a name if the
credential may. What the account asks for later is the name's next certificate: it enrolls nobody, replaces
nothing, and brings nobody back who was revoked.
"""

from __future__ import annotations

import hmac

from fltrust.enrollment.ports import EnrolledRecord
from fltrust.enrollment.types import Approval
from fltrust.errors import PermissionDenied, Refusal, Revoked
from fltrust.identity import SpiffeId
from fltrust.revocation.state import IdentityState, Standing

ACCOUNT_CLAIM = "account"
"""Where the record of a name keeps the account that it was opened for."""


def check_account(
    who: SpiffeId,
    approval: Approval,
    *,
    evidence: str,
    standing: IdentityState | None,
    record: EnrolledRecord | None,
) -> None:
    """Return only if the account may have the next certificate of `who`.

    1. The name is enrolled and stands well, else `Revoked`.
    2. Its record says that it was opened for this account, by this kind of evidence: an account that another
       took the name over from has nothing to ask for any more, else `PermissionDenied`.
    3. Every DNS name that is asked for is in the record, else `PermissionDenied` (``dns-names``).
    """
    # 1.
    if standing is None or standing.standing is not Standing.ACTIVE:
        is_held = standing is not None and standing.standing is Standing.HELD
        raise Revoked(
            f"expected {who} to stand well, it is {'on hold' if is_held else 'revoked or not enrolled'}",
            reason=Refusal.HELD if is_held else Refusal.REVOKED,
            hint="an operator makes a new credential for it",
        )
    # 2.
    opened_for = None if record is None else record.claims.get(ACCOUNT_CLAIM)
    if (
        record is None
        or record.evidence != evidence
        or approval.account is None
        or opened_for is None
        or not hmac.compare_digest(opened_for, approval.account)
    ):
        raise PermissionDenied(
            f"expected the account that {who} was opened for, it was given to another since",
            hint="ask an operator for a new credential",
        )
    # 3.
    if not set(approval.dns_names) <= set(record.dns_names):
        raise PermissionDenied(
            f"expected DNS names that an operator stated for {who}, got another", reason="dns-names"
        )
