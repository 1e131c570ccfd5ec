"""The names of workloads: made from the agent that vouches for them, and read back, without a record.

    spiffe://<domain>/participant/site-a   vouches for   spiffe://<domain>/workload/participant-site-a

So a participant and an aggregator of one name have two workloads, and nobody takes another's. A workload
stands as its agent does.
"""

from __future__ import annotations

from fltrust.errors import Malformed, PermissionDenied
from fltrust.identity import Name, Role, SpiffeId

AGENTS = frozenset({Role.PARTICIPANT, Role.AGGREGATOR})
"""The roles whose agents vouch for workloads."""


def workload_of(agent: SpiffeId) -> SpiffeId:
    """Name the workload beside an agent; `PermissionDenied` for another role, `Malformed` for a name that
    leaves no room for the role before it (63 characters in all)."""
    if agent.role not in AGENTS:
        raise PermissionDenied(f"expected an agent's identity to vouch for a workload, got {agent}")
    try:
        return SpiffeId(agent.domain, Role.WORKLOAD, Name(f"{agent.role}-{agent.name}"))
    except Malformed:
        raise Malformed(
            f"expected a name of at most {62 - len(agent.role)} characters for a workload's, got {agent}",
            hint="enroll the site under a shorter name",
        ) from None


def agent_of(workload: SpiffeId) -> SpiffeId | None:
    """The agent that vouches for a workload; None for a name that no agent of ours gives."""
    if workload.role is not Role.WORKLOAD:
        return None
    role, _, name = str(workload.name).partition("-")
    try:
        agent = SpiffeId(workload.domain, Role(role), Name(name))
    except (ValueError, Malformed):
        return None
    return agent if agent.role in AGENTS else None
