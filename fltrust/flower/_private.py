"""Everything of `flwr` that is not public API, in one place.

Checked against flwr 1.40 to 1.42. When Flower moves one of these, this module is where it shows.
"""

from __future__ import annotations

# --- apps: what the client app, the grid and the local federation need -------------------------
import sys
from typing import Any

from flwr.app import Message, Metadata, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.proto.node_pb2 import NodeInfo
from flwr.supercore.run import Run, RunNotRunningException
from flwr.supercore.task_identity import TaskIdentity

__all__ = [
    "SUPERLINK_NODE_ID",
    "ErrorCode",
    "NodeInfo",
    "Run",
    "RunNotRunningException",
    "become_server_app",
    "copy_message",
    "is_simulation_grid",
    "is_transport_error",
    "set_message_id",
]


def become_server_app(run_id: int) -> None:
    """Let this process create messages of run `run_id`, as Flower's own runtimes do."""
    TaskIdentity.task_id = 1
    TaskIdentity.run_id = run_id
    TaskIdentity.node_id = SUPERLINK_NODE_ID


def set_message_id(message: Message, message_id: str) -> None:
    message.metadata.__dict__["_message_id"] = message_id


def copy_message(message: Message, content: RecordDict) -> Message:
    """The same message around another content, as the other end of a wire would build it."""
    meta = message.metadata
    copied = Metadata(
        run_id=meta.run_id,
        message_id=meta.message_id,
        src_node_id=meta.src_node_id,
        dst_node_id=meta.dst_node_id,
        reply_to_message_id=meta.reply_to_message_id,
        group_id=meta.group_id,
        created_at=meta.created_at,
        ttl=meta.ttl,
        message_type=meta.message_type,
        src_task_id=meta.src_task_id,
        dst_task_id=meta.dst_task_id,
    )
    return Message(metadata=copied, content=content)  # type: ignore[call-overload]  # Flower's own internal form


def is_simulation_grid(grid: object) -> bool:
    """Whether this is the grid of Flower's simulation runtime."""
    module = sys.modules.get("flwr.superlink.grid")
    cls: Any = getattr(module, "InMemoryGrid", None)
    return cls is not None and isinstance(grid, cls)


def is_transport_error(error: BaseException) -> bool:
    """Whether a pull failed on its way to the SuperLink, rather than over what it fetched."""
    httpx: Any = sys.modules.get("httpx")
    if httpx is not None and isinstance(error, httpx.HTTPError):
        return True
    return isinstance(error, OSError)
