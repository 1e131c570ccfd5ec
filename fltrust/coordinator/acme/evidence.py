"""A finished ACME order as evidence: what earned it is in the tables, and was checked there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from fltrust.enrollment.ports import TokenStore
from fltrust.enrollment.types import Approval, Evidence
from fltrust.errors import Malformed
from fltrust.identity import Name, Role, SpiffeId

KIND = "acme"


@dataclass(frozen=True, slots=True)
class AcmeEvidence:
    """An order whose every name was proved. Made in this process alone: no message of ours carries one."""

    account_id: str
    order_id: str
    server: Name
    names: tuple[str, ...]
    granted_by: SpiffeId | None
    """The operator who made the account's credential."""

    def binding(self) -> bytes:
        return b"acme\x00" + self.order_id.encode("ascii")


class AcmeChecker:
    """Turns an order into an approval for the next certificate of its account's server; see
    `fltrust.enrollment.accounts`, which judges the account under the head's lock."""

    kind = KIND

    def accepts(self, evidence: Evidence) -> bool:
        return isinstance(evidence, AcmeEvidence)

    def approve(self, evidence: Evidence, *, tokens: TokenStore, now: datetime) -> Approval:
        del tokens, now
        if not isinstance(evidence, AcmeEvidence):
            raise Malformed("expected a finished order")
        return Approval(
            Role.SERVER,
            evidence.server,
            replace=False,
            granted_by=evidence.granted_by,
            dns_names=evidence.names,
            claims={"order": evidence.order_id},
            account=evidence.account_id,
        )
