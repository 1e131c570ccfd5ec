"""One puller per reply: a reply that never arrives can be abandoned without holding up the others.

The SuperLink hands out a reply as soon as it is announced, and a pull then blocks until its
tensors were uploaded, for minutes if they never are. So each message id is pulled by itself, on
a thread of a bounded crew, and a thread that is stuck in a pull is left behind and replaced.
"""

from __future__ import annotations

import heapq
import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto
from itertools import count

from flwr.app import Message

from fltrust.clock import Clock
from fltrust.flower import _private

_log = logging.getLogger("fltrust.flower")

_SLOWEST = 10  # the longest pause between two pulls, in multiples of the first


@dataclass(frozen=True, slots=True)
class PullFailed:
    """A pull that raised: over what it fetched (`transport` is false), or on its way there."""

    error: BaseException
    transport: bool


Deliver = Callable[[str, Message | PullFailed], None]


class Pullers:
    """Pulls each id until it is delivered or abandoned.

    `deliver(id, reply)` is called once for each id, in a puller's thread, so slow verification
    runs for several replies at once. An error on the way to the SuperLink is tried again for
    `patience`; one over what was fetched is delivered at once: trying again fetches the same.
    """

    def __init__(
        self,
        pull: Callable[[Iterable[str]], Iterable[Message]],
        deliver: Deliver,
        *,
        clock: Clock,
        poll: timedelta,
        patience: timedelta,
        limit: int,
    ) -> None:
        self._pull = pull
        self._deliver = deliver
        self._clock = clock
        self._poll = poll.total_seconds()
        self._patience = patience.total_seconds()
        self._limit = limit
        self._change = threading.Condition()
        self._due: list[tuple[float, int, str]] = []  # a heap: when to pull which id next
        self._order = count()
        self._wanted: dict[str, _Wait] = {}
        self._pulling: dict[str, float] = {}  # since when an id is being pulled
        self._crew = 0
        self._idle = 0
        self._closed = False

    def add(self, message_ids: Iterable[str]) -> None:
        """Begin to pull these ids."""
        with self._change:
            for message_id in message_ids:
                self._wanted[message_id] = _Wait(pause=self._poll)
                heapq.heappush(self._due, (self._clock.monotonic(), next(self._order), message_id))
            self._hire()
            self._change.notify_all()

    def abandon(self, message_id: str) -> None:
        """Want this id no longer. A thread that is stuck in its pull no longer counts."""
        with self._change:
            self._wanted.pop(message_id, None)
            if self._pulling.pop(message_id, None) is not None:
                self._crew -= 1
                self._hire()

    def stalled(self, bound: timedelta) -> tuple[str, ...]:
        """The ids whose present pull has not come back for `bound`."""
        now = self._clock.monotonic()
        with self._change:
            return tuple(i for i, since in self._pulling.items() if now - since >= bound.total_seconds())

    def close(self) -> None:
        """Abandon everything; returns at once. Threads in a pull end when it comes back."""
        with self._change:
            self._closed = True
            self._wanted.clear()
            self._pulling.clear()
            self._due.clear()
            self._change.notify_all()

    def _hire(self) -> None:
        """Start threads for what is due, within the limit. Called with the lock held."""
        missing = min(self._limit - self._crew, len(self._wanted) - len(self._pulling) - self._idle)
        for _ in range(missing):
            self._crew += 1
            threading.Thread(target=self._work, name="fltrust-puller", daemon=True).start()

    def _work(self) -> None:
        while (message_id := self._next()) is not None:
            began = self._clock.monotonic()
            outcome: Message | PullFailed | None
            try:
                outcome = next(iter(self._pull([message_id])), None)
            except BaseException as error:
                # Not Exception: Flower raises a BaseException when the run was stopped.
                outcome = PullFailed(error, transport=_private.is_transport_error(error))
            match self._settle(message_id, outcome, began):
                case _Settled.LEFT_BEHIND:
                    return
                case _Settled.DELIVER if outcome is not None:
                    self._deliver(message_id, outcome)

    def _next(self) -> str | None:
        """Wait for the next id that is due; None when there is nothing left to wait for."""
        with self._change:
            self._idle += 1
            try:
                while not self._closed and self._wanted:
                    now = self._clock.monotonic()
                    while self._due and self._due[0][2] not in self._wanted:
                        heapq.heappop(self._due)
                    if self._due and self._due[0][0] <= now:
                        message_id = heapq.heappop(self._due)[2]
                        self._pulling[message_id] = now
                        return message_id
                    self._change.wait(self._due[0][0] - now if self._due else None)
                self._crew -= 1
                return None
            finally:
                self._idle -= 1

    def _settle(self, message_id: str, outcome: Message | PullFailed | None, began: float) -> _Settled:
        """Decide what a pull that came back means; this thread may have been left behind meanwhile."""
        with self._change:
            if self._pulling.pop(message_id, None) is None:
                return _Settled.LEFT_BEHIND
            wait = self._wanted[message_id]
            now = self._clock.monotonic()
            failed = isinstance(outcome, PullFailed) and outcome.transport
            if not failed:
                wait.failing_since = None
            elif wait.failing_since is None:
                wait.failing_since = now
                _log.warning("pulling a reply failed, trying again: %r", outcome)
            if outcome is not None and not (failed and now - (wait.failing_since or now) < self._patience):
                del self._wanted[message_id]
                return _Settled.DELIVER
            # A pull that was held open at the other end needs no pause after it.
            held = outcome is None and now - began >= wait.pause
            heapq.heappush(self._due, (now if held else now + wait.pause, next(self._order), message_id))
            wait.pause = min(wait.pause * 1.3, self._poll * _SLOWEST)
            self._change.notify()
            return _Settled.AGAIN


class _Settled(Enum):
    LEFT_BEHIND = auto()
    AGAIN = auto()
    DELIVER = auto()


@dataclass(slots=True)
class _Wait:
    pause: float
    failing_since: float | None = None
