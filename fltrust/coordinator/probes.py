"""Health checking and reflection, on both ports, under the same steps as every other call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha._async import ReflectionServicer

from fltrust.coordinator.rpc import Behaviour, Context, Port, read, within
from fltrust.errors import Malformed, NotFound
from fltrust.wire.values import parse

_HEALTH = "grpc.health.v1.Health"
_REFLECTION = "grpc.reflection.v1alpha.ServerReflection"
_REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"  # the same messages under another name
_MAX_PROBE = 4 * 1024
_MAX_QUESTIONS = 64

Admission = Callable[[Context], AbstractAsyncContextManager[None]]


def add_probes(port: Port, *, admit: Admission, is_serving: Callable[[], bool], timeout: float) -> None:
    """Add ``grpc.health.v1`` (Check; Watch is not served, so that nobody can hold streams) and
    ``grpc.reflection`` for the services of `port`, to those whom `admit` lets in."""
    services = sorted({method.split("/")[1] for method in port.methods})
    port.add(f"/{_HEALTH}/Check", _health(services, admit, is_serving, timeout))
    names = [*services, _HEALTH, _REFLECTION]
    for name in (_REFLECTION, _REFLECTION_V1):
        port.add(f"/{name}/ServerReflectionInfo", _reflection(names, admit, timeout))


def _health(
    services: list[str], admit: Admission, is_serving: Callable[[], bool], timeout: float
) -> Behaviour:
    async def check(context: Context) -> None:
        async with admit(context):
            data = await within(timeout, read(context))
            if data is None:
                raise Malformed("expected a HealthCheckRequest, got no message")
            request = parse(health_pb2.HealthCheckRequest, data, limit=_MAX_PROBE)
            if request.service and request.service not in services:
                raise NotFound(f"expected one of {', '.join(services)}, got {request.service[:80]!r}")
            status = health_pb2.HealthCheckResponse.SERVING
            if not is_serving():
                status = health_pb2.HealthCheckResponse.NOT_SERVING
            await context.write(health_pb2.HealthCheckResponse(status=status).SerializeToString())

    return check


def _reflection(names: list[str], admit: Admission, timeout: float) -> Behaviour:
    servicer = ReflectionServicer(names)

    async def info(context: Context) -> None:
        async def questions() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
            for _ in range(_MAX_QUESTIONS):
                data = await read(context)
                if data is None:
                    return
                yield parse(reflection_pb2.ServerReflectionRequest, data, limit=_MAX_PROBE)

        async def answer() -> None:
            async for response in servicer.ServerReflectionInfo(questions(), context):
                await context.write(response.SerializeToString())

        async with admit(context):
            await within(timeout, answer())

    return info
