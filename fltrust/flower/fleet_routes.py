"""The Fleet API, path by path: what a body is, how large it may be, and what a refusal is on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from flwr.proto.fab_pb2 import GetFabRequest
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest, PushObjectRequest
from flwr.proto.run_pb2 import GetRunRequest

from fltrust.errors import (
    CertificateRefused,
    Conflict,
    FltrustError,
    InvalidInput,
    LimitExceeded,
    NotFound,
    Oversized,
    PermissionDenied,
    Refusal,
    Revoked,
    Unauthenticated,
    Unavailable,
)

PREFIX = "/v1/fleet/"


@dataclass(frozen=True, slots=True)
class FleetLimits:
    """Bounds of one request, and of one participant's requests at once."""

    small_body: int = 64 * 1024
    announcement: int = 16 * 1024 * 1024
    object_body: int = 64 * 1024 * 1024
    """Flower cuts tensors into objects of 5 MiB."""
    body_idle: float = 20.0
    body_total: float = 600.0
    in_flight: int = 16
    """Requests of one participant at once, held pulls among them."""


@dataclass(frozen=True, slots=True)
class Route:
    """One path of the Fleet API: what its body is, how large it may be, where the node id stands."""

    request: type[Any]
    limit: str = "small_body"
    node: str = "node"


ROUTES: Mapping[str, Route] = MappingProxyType(
    {
        "activate-node": Route(ActivateNodeRequest, node=""),
        "deactivate-node": Route(DeactivateNodeRequest, node="node_id"),
        "send-node-heartbeat": Route(SendNodeHeartbeatRequest),
        "pull-messages": Route(PullMessagesRequest),
        "push-messages": Route(PushMessagesRequest, limit="announcement"),
        "get-run": Route(GetRunRequest),
        "get-fab": Route(GetFabRequest),
        "push-object": Route(PushObjectRequest, limit="object_body"),
        "pull-object": Route(PullObjectRequest),
        "confirm-message-received": Route(ConfirmMessageReceivedRequest),
    }
)
CLOSED = frozenset({"register-node", "unregister-node"})


def status_of(refusal: FltrustError) -> int:
    """Translate a refusal for a SuperNode: 401 ends it, 403 drops the message, 503 has it try again."""
    if refusal.reason == Refusal.HELD:
        return 503
    for kind, status in _STATUS:
        if isinstance(refusal, kind):
            return status
    return 500


_STATUS: tuple[tuple[type[FltrustError], int], ...] = (
    (Revoked, 401),
    (CertificateRefused, 401),
    (Unauthenticated, 401),
    (PermissionDenied, 403),
    (NotFound, 404),
    (Conflict, 409),
    (Oversized, 413),
    (InvalidInput, 400),
    (LimitExceeded, 503),
    (Unavailable, 503),
)
