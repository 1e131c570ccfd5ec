"""What a workload shares with the agent that vouches for it: whatever bars the one bars the other."""

from __future__ import annotations

from datetime import datetime

from fltrust.enrollment.ports import CertificateRecord, CertificateStore
from fltrust.errors import Malformed
from fltrust.identity import SpiffeId
from fltrust.pki.workloads import AGENTS, workload_of


def unexpired_with_workload(
    who: SpiffeId, certificates: CertificateStore, *, now: datetime
) -> tuple[CertificateRecord, ...]:
    """Every certificate of `who` that has not expired, then those of the workload beside it."""
    found = certificates.unexpired_of(who, now=now)
    if who.role not in AGENTS:
        return found
    try:
        return (*found, *certificates.unexpired_of(workload_of(who), now=now))
    except Malformed:  # a name too long to make another of: it has no workload
        return found
