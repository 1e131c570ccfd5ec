"""Errors, translated once: the tree of `fltrust.errors` and ``google.rpc.Status``.

A status carries one ``ErrorInfo``: the reason, the domain ``fltrust``, and in its metadata the class
name and the hint. What is not of our tree crosses as INTERNAL with an id to find in the log, and
nothing else. What comes back is never lost: a class or reason that is not known here is rebuilt as
the nearest class that the grpc code names.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from fltrust import errors
from fltrust.errors import FltrustError
from fltrust.wire.pb import agent_pb2

DOMAIN = "fltrust"
STATUS_KEY = "grpc-status-details-bin"
_MAX_REASON = 100
_log = logging.getLogger(__name__)

CODES: dict[type[FltrustError], grpc.StatusCode] = {
    errors.InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Refused: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.TokenRefused: grpc.StatusCode.PERMISSION_DENIED,
    errors.EvidenceRefused: grpc.StatusCode.PERMISSION_DENIED,
    errors.CertificateRefused: grpc.StatusCode.UNAUTHENTICATED,
    errors.Revoked: grpc.StatusCode.PERMISSION_DENIED,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.Conflict: grpc.StatusCode.ABORTED,
    errors.LimitExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    FltrustError: grpc.StatusCode.INTERNAL,
}
"""The grpc code of a class; a class that is not listed has its nearest ancestor's."""

_CLASSES = {cls.__name__: cls for cls in errors.leaf_classes()}
_MAX_TEXT = 600  # characters of a message or hint: gRPC drops trailers above 8 KiB, in UTF-8 and base64
_FROM_CODE: dict[grpc.StatusCode, type[FltrustError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidInput,
    grpc.StatusCode.FAILED_PRECONDITION: errors.Refused,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: errors.PermissionDenied,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.ABORTED: errors.Conflict,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.LimitExceeded,
    grpc.StatusCode.UNAVAILABLE: errors.CoordinatorUnavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.CoordinatorUnavailable,
    grpc.StatusCode.CANCELLED: errors.CoordinatorUnavailable,
}


def code_of(error: FltrustError) -> grpc.StatusCode:
    """The grpc code that an error crosses with."""
    return next(CODES[cls] for cls in type(error).__mro__ if cls in CODES)


def mask(error: BaseException) -> FltrustError:
    """Return an error of our tree as it is; log any other with an id, and return one that says the id."""
    if isinstance(error, FltrustError):
        return error
    error_id = secrets.token_hex(4)
    _log.error("unexpected error %s", error_id, exc_info=error)
    return FltrustError(f"internal error {error_id}", hint="the coordinator's log has the details")


def status_of(error: BaseException) -> tuple[grpc.StatusCode, str, bytes]:
    """The grpc code, the message, and the serialised ``google.rpc.Status`` of an error."""
    ours = mask(error)
    code = code_of(ours)
    metadata = {"error": type(ours).__name__ if type(ours).__name__ in _CLASSES else "FltrustError"}
    if ours.hint:
        metadata["hint"] = ours.hint[:_MAX_TEXT]
    status = status_pb2.Status(code=code.value[0], message=ours.message[:_MAX_TEXT])
    status.details.add().Pack(
        error_details_pb2.ErrorInfo(reason=ours.reason[:_MAX_REASON], domain=DOMAIN, metadata=metadata)
    )
    return code, status.message[:200], status.SerializeToString()


def error_from_status(
    code: grpc.StatusCode, message: str, trailers: Sequence[tuple[str, str | bytes]]
) -> FltrustError:
    """Rebuild the error of a failed call from its grpc code, message and trailing metadata."""
    for key, value in trailers:
        if key == STATUS_KEY and isinstance(value, bytes):
            rebuilt = _from_details(value, code)
            if rebuilt is not None:
                return rebuilt
    # No details: the transport's own words. A server of ours sends details with every refusal.
    cls = _FROM_CODE.get(code, FltrustError)
    return cls(f"{code.name.lower().replace('_', ' ')}: {message[:_MAX_TEXT]}")


def error_from_call(error: grpc.RpcError) -> FltrustError:
    """Rebuild the error of a failed call of the synchronous client."""
    if not isinstance(error, grpc.Call):
        return errors.CoordinatorUnavailable(f"the call failed: {type(error).__name__}")
    trailers = [(str(key), value) for key, value in error.trailing_metadata() or ()]
    return error_from_status(error.code(), error.details() or "", trailers)


def _from_details(data: bytes, code: grpc.StatusCode) -> FltrustError | None:
    status = status_pb2.Status()
    info = error_details_pb2.ErrorInfo()
    try:
        status.ParseFromString(data)
        if not any(detail.Unpack(info) for detail in status.details) or info.domain != DOMAIN:
            return None
    except DecodeError:
        return None
    cls = _CLASSES.get(info.metadata.get("error", "")) or _FROM_CODE.get(code, FltrustError)
    return cls(status.message, reason=info.reason or None, hint=info.metadata.get("hint"))


def agent_error_to_pb(error: BaseException) -> agent_pb2.AgentError:
    """An error as it crosses the agent's socket."""
    ours = mask(error)
    name = type(ours).__name__
    return agent_pb2.AgentError(
        error=name if name in _CLASSES else "FltrustError",
        reason=ours.reason,
        message=ours.message[:_MAX_TEXT],
        hint=(ours.hint or "")[:_MAX_TEXT],
    )


def agent_error_from_pb(message: agent_pb2.AgentError) -> FltrustError:
    """Rebuild it; a class that is not known here becomes `FltrustError` with the reason it came with."""
    cls = _CLASSES.get(message.error, FltrustError)
    return cls(message.message, reason=message.reason or None, hint=message.hint or None)
