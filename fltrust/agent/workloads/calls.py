"""One call on the workload socket: bounded, parsed here, answered as long as somebody listens."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError, Message

from fltrust.agent.workloads.keeper import Served, WorkloadKeeper
from fltrust.errors import FltrustError, InvalidInput, LimitExceeded, Refused

_log = logging.getLogger("fltrust.agent")

Context: TypeAlias = "grpc.ServicerContext"
Serve: TypeAlias = Callable[[Iterator[bytes], Context], Iterator[bytes]]
Route: TypeAlias = Any
"""A gRPC method handler; its stubs name no type for it."""

FIRST_WAIT = 5.0
"""Seconds that a caller waits for the first certificate before it is told that there is none."""
_TICK = 30.0
MAX_REQUEST = 64 * 1024
"""Bytes of one message that comes in."""


def answering(request: type[Message], serve: Serve) -> Route:
    """A method whose one request is read, and refused if it is no `request`, before `serve` answers."""

    def handle(requests: Iterator[bytes], context: Context) -> Iterator[bytes]:
        data = next(requests, b"")
        try:
            request.FromString(data)
        except DecodeError:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"expected a {request.__name__}")
        yield from refusing(serve(requests, context), context)

    return streaming(handle)


def streaming(serve: Serve) -> Route:
    """A method as gRPC takes it: bytes in, bytes out."""
    return grpc.stream_stream_rpc_method_handler(serve)


def changes(keeper: WorkloadKeeper, context: Context) -> Iterator[Served]:
    """What is given out now, and each later version, until the caller is gone. Raises as `keeper.after`."""
    context.add_callback(keeper.stir)
    version, wait = 0, FIRST_WAIT
    while context.is_active():
        served = keeper.after(version, wait, is_over=lambda: not context.is_active())
        wait = _TICK
        if served is not None:
            version = served.version
            yield served


def refusing(answers: Iterator[bytes], context: Context) -> Iterator[bytes]:
    """Pass answers on; an error of ours ends the call with its gRPC status."""
    try:
        yield from answers
    except FltrustError as error:
        _log.info("a call on the workload socket was refused: %s", error)
        context.abort(_code(error), str(error))


def _code(error: FltrustError) -> grpc.StatusCode:
    if isinstance(error, Refused):
        return grpc.StatusCode.PERMISSION_DENIED
    if isinstance(error, LimitExceeded):
        return grpc.StatusCode.RESOURCE_EXHAUSTED
    if isinstance(error, InvalidInput):
        return grpc.StatusCode.INVALID_ARGUMENT
    return grpc.StatusCode.UNAVAILABLE
