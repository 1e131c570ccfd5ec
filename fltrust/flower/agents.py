"""Finding the agent: who checks and signs for this app process.

A participant's app looks, in this order, for
1. an agent in this very process (`fltrust.testing`, which runs several nodes in one);
2. the socket that ``FLTRUST_AGENT_SOCKET`` names, as `fltrust supernode` sets it;
3. the socket that the node config names (``--node-config 'fltrust-socket="…"'``);
4. the socket of this run in Flower's simulation runtime.
"""

from __future__ import annotations

import os
import stat
import tempfile
import threading
from pathlib import Path

from flwr.app import Context

from fltrust.agent.client import SOCKET_VARIABLE, AgentClient
from fltrust.agent.ports import ParticipantAgent
from fltrust.errors import AgentUnavailable
from fltrust.identity import NodeId, RunId

NODE_CONFIG_KEY = "fltrust-socket"

_lock = threading.Lock()
_in_process: dict[tuple[RunId, NodeId], ParticipantAgent] = {}


def participant_agent(context: Context) -> ParticipantAgent:
    """The agent of the node that `context` speaks of. `AgentUnavailable`, saying where to look, if none."""
    run_id, node_id = RunId(context.run_id), NodeId(context.node_id)
    with _lock:
        agent = _in_process.get((run_id, node_id))
    if agent is not None:  # 1
        return agent
    if os.environ.get(SOCKET_VARIABLE):  # 2
        return AgentClient.from_environment()
    configured = context.node_config.get(NODE_CONFIG_KEY)
    if configured:  # 3
        return AgentClient(Path(str(configured)))
    simulated = simulation_socket(run_id)
    if _is_ours(simulated):  # 4
        return AgentClient(simulated)
    raise AgentUnavailable(
        f"expected an agent for node {int(node_id)}, found none: {SOCKET_VARIABLE} is not set, the node "
        f"config has no {NODE_CONFIG_KEY!r}, and no simulation of run {int(run_id)} is on this machine",
        hint="start the node with 'fltrust supernode'; in a simulation, use TrustedStrategy in the ServerApp",
    )


def register_in_process(run_id: RunId, node_id: NodeId, agent: ParticipantAgent) -> None:
    """Let `agent` answer for this node in this process, until `forget_in_process`."""
    with _lock:
        _in_process[run_id, node_id] = agent


def forget_in_process(run_id: RunId) -> None:
    """Forget every agent of this run."""
    with _lock:
        for key in [key for key in _in_process if key[0] == run_id]:
            del _in_process[key]


def simulation_socket(run_id: RunId) -> Path:
    """Where the agent of a simulated run listens: derived from uid and run id, so that every worker
    process on this machine finds it."""
    return Path(tempfile.gettempdir()) / f"fltrust-sim-{os.geteuid()}-{int(run_id):x}" / "agent.sock"


def _is_ours(socket: Path) -> bool:
    """Whether the socket lies in a folder that is this user's alone; others may write around it."""
    try:
        folder = socket.parent.lstat()
    except OSError:
        return False
    private = stat.S_ISDIR(folder.st_mode) and folder.st_uid == os.geteuid() and not folder.st_mode & 0o077
    return private and socket.is_socket()
