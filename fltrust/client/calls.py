"""One call: a deadline on it, the answer parsed, the error rebuilt, repeated only where that is safe."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from fltrust.client.channel import ChannelSource
from fltrust.errors import CoordinatorUnavailable, FltrustError, StorageUnavailable, Unavailable
from fltrust.wire.errors import error_from_call
from fltrust.wire.rounds import MAX_ROUND
from fltrust.wire.values import parse

R = TypeVar("R", bound=Message)

_NEVER_SENT = "failed to connect to all addresses"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """Seconds, and how often. `timeout` covers a call with all its repetitions."""

    timeout: float = 10.0
    seal_timeout: float = 60.0
    stream_timeout: float = 600.0
    """For all the answers of one call, taken as fast as the caller of the client takes them."""
    attempts: int = 5
    first_pause: float = 0.1
    max_pause: float = 2.0


class Caller:
    """Makes unary and client-streamed calls over a `ChannelSource`."""

    def __init__(
        self,
        channels: ChannelSource,
        settings: ClientSettings,
        *,
        rng: random.Random,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._channels = channels
        self.settings = settings
        self._rng = rng
        self._sleep = sleep
        self._monotonic = monotonic

    def unary(
        self,
        method: str,
        request: Message,
        kind: type[R],
        *,
        is_idempotent: bool,
        timeout: float | None = None,
    ) -> R:
        """Send one request; see `_attempts` for what is repeated. `timeout` in place of the usual one."""
        data = request.SerializeToString()

        def once(channel: grpc.Channel, timeout: float) -> bytes:
            answer: bytes = channel.unary_unary(method, as_is, as_is)(data, timeout=timeout)
            return answer

        return self._attempts(once, kind, timeout or self.settings.timeout, is_idempotent)

    def answers(self, method: str, request: Message, kind: type[R]) -> Iterator[R]:
        """Send one request and yield its answers as they come. Closing the iterator ends the call.

        For reads: while no answer has come, it is repeated as an idempotent call is.
        """
        data, came = request.SerializeToString(), False
        pause, attempt = self.settings.first_pause, 1
        deadline = self._monotonic() + self.settings.stream_timeout
        while True:
            with self._channels.lease() as channel:
                left = max(deadline - self._monotonic(), 0.001)
                call: Any = channel.unary_stream(method, as_is, as_is)(data, timeout=left)
                try:
                    for answer in call:
                        came = True
                        yield parse(kind, answer, limit=MAX_ROUND)
                    return
                except grpc.RpcError as error:
                    failed = error_from_call(error)
                finally:
                    call.cancel()
            attempt += 1
            if came or not _may_repeat(failed, True) or attempt > self.settings.attempts:
                raise _with_hint(failed) from None
            self._sleep(pause * self._rng.uniform(0.5, 1.0))
            pause = min(pause * 2, self.settings.max_pause)

    def streamed(
        self, method: str, requests: Callable[[], Iterator[bytes]], kind: type[R], *, is_idempotent: bool
    ) -> R:
        """Send the messages of one request; `requests` starts them anew for every attempt."""

        def once(channel: grpc.Channel, timeout: float) -> bytes:
            answer: bytes = channel.stream_unary(method, as_is, as_is)(requests(), timeout=timeout)
            return answer

        return self._attempts(once, kind, self.settings.seal_timeout, is_idempotent)

    def _attempts(
        self,
        once: Callable[[grpc.Channel, float], bytes],
        kind: type[R],
        timeout: float,
        is_idempotent: bool,
    ) -> R:
        """Call until it is answered, refused, or out of time or attempts.

        Repeated is only what the coordinator was too busy or too far away for, and only if the
        method may be repeated or the request provably never left: no connection was there.
        """
        deadline = self._monotonic() + timeout
        pause = self.settings.first_pause
        for attempt in range(1, self.settings.attempts + 1):
            left = deadline - self._monotonic()
            try:
                with self._channels.lease() as channel:
                    return parse(kind, once(channel, max(left, 0.001)), limit=MAX_ROUND)
            except grpc.RpcError as error:
                failed = error_from_call(error)
                again = _may_repeat(failed, is_idempotent)
                left = deadline - self._monotonic()
                if not again or attempt == self.settings.attempts or left <= pause:
                    raise _with_hint(failed) from None
            self._sleep(pause * self._rng.uniform(0.5, 1.0))
            pause = min(pause * 2, self.settings.max_pause)
        raise AssertionError("unreachable: the last attempt returns or raises")


def as_is(data: bytes) -> bytes:
    """gRPC's serialiser for what is bytes already: we parse ourselves, with bounds and our own errors."""
    return data


def _may_repeat(error: FltrustError, is_idempotent: bool) -> bool:
    if not isinstance(error, Unavailable) or isinstance(error, StorageUnavailable):
        return False
    return is_idempotent or _NEVER_SENT in error.message


def _with_hint(error: FltrustError) -> FltrustError:
    if isinstance(error, CoordinatorUnavailable) and error.hint is None:
        error.hint = "is the coordinator running and reachable from here?"
    return error
