"""The agent vouches for the workload beside it: SPIFFE's Workload API and Envoy's SDS, on an own socket.

A workload's key is made here and handed out to whoever may use the socket: that is what these interfaces are
for. It is another key than the agent's, under another name, and may call nothing at the coordinator.
"""

from __future__ import annotations

from fltrust.agent.workloads.keeper import Served, WorkloadDesk, WorkloadKeeper
from fltrust.agent.workloads.server import WorkloadServer

__all__ = ["Served", "WorkloadDesk", "WorkloadKeeper", "WorkloadServer"]
