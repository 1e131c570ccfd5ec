"""The two ports as gRPC sees them: every call through the same steps, and every error translated once.

All methods are served as streams of bytes. So the caller is judged before its message is read, a
message is bounded before it is parsed, and what is malformed gets our error instead of gRPC's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message

from fltrust.clock import Clock
from fltrust.coordinator import methods as table
from fltrust.coordinator.authority import Authority
from fltrust.coordinator.counters import Counters
from fltrust.coordinator.feed import Feed
from fltrust.coordinator.gate import Gate, check_tls
from fltrust.coordinator.lanes import Lane, Urgency
from fltrust.coordinator.limits import RateLimiter, Slots, address_key
from fltrust.coordinator.permissions import BOOTSTRAP_METHODS, METHODS, check_permission
from fltrust.coordinator.serving import ServerSettings
from fltrust.coordinator.session import Caller
from fltrust.coordinator.watch import WatchStream
from fltrust.errors import LimitExceeded, Malformed
from fltrust.identity import Epoch
from fltrust.wire import methods
from fltrust.wire.errors import STATUS_KEY, status_of
from fltrust.wire.pb import rounds_pb2, trust_pb2
from fltrust.wire.rounds import SealParts
from fltrust.wire.values import MAX_MESSAGE, parse

_log = logging.getLogger(__name__)

_ABORT_TIMEOUT = 2.0
_BATCH = 64
_BATCH_BYTES = 256 * 1024

M = TypeVar("M", bound=Message)

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Behaviour = Callable[[Context], Awaitable[None]]
"""Answers one call by writing to its context; raises what it refuses with."""


@dataclass(slots=True, kw_only=True)
class Common:
    """What both ports share."""

    authority: Authority
    settings: ServerSettings
    clock: Clock
    reads: Lane
    writes: Lane
    statements: Lane
    """For what a caller sends much of. It is read here, and written in a short transaction of its own."""
    counters: Counters

    async def run(
        self,
        act: Callable[[], Message],
        *,
        is_write: bool,
        is_large: bool = False,
        urgency: Urgency = Urgency.USUAL,
    ) -> bytes:
        lane = self.statements if is_large else self.writes if is_write else self.reads
        return await lane.run(lambda: act().SerializeToString(), urgency=urgency)

    async def receive(self, context: Context, kind: type[M], *, limit: int = 0) -> M:
        """Read the one message of a call and parse it; bounded in size and time."""
        data = await within(self.settings.receive_timeout, read(context))
        if data is None:
            raise Malformed(f"expected a {kind.__name__}, got no message")
        return parse(kind, data, limit=limit or self.settings.max_message)


class Port(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs alone
    """Routes calls by full method name. A method that is not known is UNIMPLEMENTED."""

    def __init__(self, name: str, counters: Counters) -> None:
        self._name = name
        self._counters = counters
        self._behaviours: dict[str, Behaviour] = {}

    def add(self, method: str, behaviour: Behaviour) -> None:
        self._behaviours[method] = behaviour

    @property
    def methods(self) -> frozenset[str]:
        return frozenset(self._behaviours)

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        behaviour = self._behaviours.get(details.method)
        if behaviour is None:
            self._counters.add(f"rpc.{self._name}.unknown-method")
            return None

        async def handle(_requests: object, context: Context) -> None:
            await self._answer(details.method, behaviour, context)

        return grpc.stream_stream_rpc_method_handler(handle)

    async def _answer(self, method: str, behaviour: Behaviour, context: Context) -> None:
        name = method.rpartition("/")[2]
        try:
            await behaviour(context)
        except asyncio.CancelledError:
            self._counters.add(f"rpc.{self._name}.{name}.cancelled")
            raise
        except Exception as error:
            code, message, details = status_of(error)
            reason = getattr(error, "reason", "internal")
            self._counters.add(f"rpc.{self._name}.{name}.{reason}")
            _log.info("%s from %s refused: %s (%s)", name, context.peer(), error, reason)
        else:
            self._counters.add(f"rpc.{self._name}.{name}.ok")
            return
        try:
            async with asyncio.timeout(_ABORT_TIMEOUT):
                await context.abort(code, message, ((STATUS_KEY, details),))
        except TimeoutError:
            # The caller takes nothing, not even this. Ending the task lets gRPC reset the stream.
            raise asyncio.CancelledError from None


@dataclass(slots=True)
class Bootstrap:
    """The port for those who have no certificate yet: server authentication, two methods."""

    common: Common
    rates: RateLimiter
    slots: Slots
    port: Port = field(init=False)

    def __post_init__(self) -> None:
        self.port = Port("bootstrap", self.common.counters)
        for method in BOOTSTRAP_METHODS:
            self.port.add(method, self._serve(table.BOOTSTRAP[method]))

    def _serve(self, method: table.Open) -> Behaviour:
        common = self.common

        async def answer(context: Context) -> None:
            with self.admit(context) as source:
                request = await common.receive(context, method.request)
                act = partial(method.act, common.authority, request, source)
                await context.write(await common.run(act, is_write=method.is_write))

        return answer

    @contextmanager
    def admit(self, context: Context) -> Iterator[str]:
        """Yields where the call comes from. 1. TLS 1.3. 2. The peer address keeps to its rate. 3. There is a
        slot for the call."""
        check_tls(context.auth_context())
        source = address_key(context.peer())
        self.rates.take(source)
        with self.slots.hold(source):
            yield source


@dataclass(slots=True)
class Mutual:
    """The mTLS port. On every call:

    1. The connection speaks TLS 1.3 and showed a certificate that verifies now (`Gate.identify`).
    2. The identity keeps to its rate.
    3. The table allows its role the method (`check_permission`).
    4. It stands well at the present epoch (`Authority.judge`).
    5. There is a slot for the call.
    6. Only then its message is read: bounded in size and time, then parsed.
    7. The call is made on a lane's thread, where the session decides 3 and 4 again.
    """

    common: Common
    gate: Gate
    feed: Feed
    rates: RateLimiter
    calls: Slots
    watches: Slots
    large: Slots
    """Calls whose request may be large, or whose answers are many."""
    port: Port = field(init=False)

    def __post_init__(self) -> None:
        self.port = Port("mtls", self.common.counters)
        for method in METHODS:
            self.port.add(method, self._behaviour(method))

    def _behaviour(self, method: str) -> Behaviour:
        if method == methods.WATCH:
            return self._watch
        if method == methods.SEAL_ROUND:
            return self._seal
        if method in table.STREAMED:
            return self._streamed(method, table.STREAMED[method])
        return self._unary(method, table.UNARY[method])

    async def admit(self, method: str | None, context: Context) -> Caller:
        """Steps 1 to 4; without a method, the table is not asked."""
        caller = self.gate.identify(context.auth_context())  # 1
        self.rates.take(str(caller.spiffe_id))  # 2
        if method is not None:
            check_permission(caller.spiffe_id, method, home=self.common.authority.ca.domain)  # 3
        await self._judge(caller, to_renew=method == methods.RENEW)  # 4
        return caller

    async def _judge(self, caller: Caller, *, to_renew: bool = False) -> None:
        judge = partial(self.common.authority.judge, caller.certificate, to_renew=to_renew)
        await self.common.reads.run(judge, urgency=Urgency.NOW)

    def _unary(self, name: str, method: table.Unary) -> Behaviour:
        common = self.common
        is_large = method.limit > MAX_MESSAGE
        slots = self.large if is_large else self.calls

        async def answer(context: Context) -> None:
            caller = await self.admit(name, context)
            with slots.hold(str(caller.spiffe_id)):  # 5
                request = await common.receive(
                    context, method.request, limit=method.limit if is_large else 0
                )  # 6
                session = common.authority.session(caller)
                act = partial(method.act, session, request)
                data = await common.run(  # 7
                    act, is_write=method.is_write, is_large=is_large, urgency=method.urgency
                )
                await context.write(data)

        return answer

    def _streamed(self, name: str, method: table.Streamed) -> Behaviour:
        """As `_unary`; the answers are made a few at a time, as fast as the caller takes them."""
        common = self.common

        async def answer(context: Context) -> None:
            caller = await self.admit(name, context)
            with self.large.hold(str(caller.spiffe_id)):  # 5
                request = await common.receive(context, method.request)  # 6
                session = common.authority.session(caller)
                answers = await common.reads.run(lambda: method.act(session, request))  # 7
                while batch := await common.reads.run(lambda: _some(answers)):
                    for data in batch:
                        await within(common.settings.stall_timeout, context.write(data))

        return answer

    async def _seal(self, context: Context) -> None:
        common = self.common
        caller = await self.admit(methods.SEAL_ROUND, context)
        with self.calls.hold(str(caller.spiffe_id)):
            parts = SealParts(limit=common.settings.max_seal)
            await within(common.settings.seal_timeout, self._gather(context, parts))
            session = common.authority.session(caller)
            await context.write(await common.run(lambda: table.seal(session, parts), is_write=True))

    async def _gather(self, context: Context, parts: SealParts) -> None:
        while (data := await read(context)) is not None:
            parts.add(parse(rounds_pb2.SealRoundRequest, data, limit=self.common.settings.max_message))

    async def _watch(self, context: Context) -> None:
        common = self.common
        caller = await self.admit(methods.WATCH, context)
        with self.watches.hold(str(caller.spiffe_id)):
            request = await common.receive(context, trust_pb2.WatchRequest)
            after = Epoch(request.after_epoch)
            await common.reads.run(lambda: common.authority.check_watch(after))
            stream = WatchStream(
                self.feed,
                caller,
                write=context.write,
                judge=lambda: self._judge(caller),
                clock=common.clock,
                heartbeat=common.settings.heartbeat,
                stall=common.settings.stall_timeout,
            )
            await stream.run(after)


def _some(answers: Iterator[Message]) -> list[bytes]:
    """The next few answers, serialised: one at least, if there is one, and no more than 256 kB or 64."""
    batch: list[bytes] = []
    size = 0
    for answer in answers:
        batch.append(answer.SerializeToString())
        size += len(batch[-1])
        if size > _BATCH_BYTES or len(batch) == _BATCH:
            break
    return batch


async def read(context: Context) -> bytes | None:
    """The next message of the call; None when the caller has sent its last."""
    data = await context.read()
    return data if isinstance(data, bytes) else None  # else it is gRPC's word for the end


async def within(seconds: float, what: Awaitable[Any]) -> Any:
    """Await `what`; `LimitExceeded` (``slow-caller``) if it takes longer."""
    try:
        async with asyncio.timeout(seconds):
            return await what
    except TimeoutError:
        raise LimitExceeded(
            f"expected the whole request within {seconds:g} s, it did not come", reason="slow-caller"
        ) from None
