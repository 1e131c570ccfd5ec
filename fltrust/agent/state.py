"""The agent's side of a state folder: where its socket lies. The format is `fltrust.enrollment.state`'s."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from fltrust.agent.sockets import MAX_SOCKET_PATH
from fltrust.enrollment.homes import HOME_VARIABLE, default_home, find_state, list_states, state_folder
from fltrust.enrollment.private import (
    PASSPHRASE_FILE_VARIABLE,
    passphrase_from_environment,
    read_passphrase,
)
from fltrust.enrollment.state import AgentRecord, AgentState, StateDraft, StateLock

__all__ = [
    "HOME_VARIABLE",
    "PASSPHRASE_FILE_VARIABLE",
    "AgentRecord",
    "AgentState",
    "StateDraft",
    "StateLock",
    "default_home",
    "find_state",
    "list_states",
    "passphrase_from_environment",
    "read_passphrase",
    "socket_path_of",
    "state_folder",
]


def socket_path_of(folder: Path, *, shared: bool = False) -> Path:
    """Where the socket of the agent on `folder` lies: in there, or in a folder of its own under the
    system's temporary one, where that path is too long for a socket or other users may use it (`shared`)."""
    near = folder.absolute() / "run" / "agent.sock"
    if not shared and len(os.fsencode(near)) <= MAX_SOCKET_PATH:
        return near
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"fltrust-{os.geteuid()}-{name}" / "agent.sock"
