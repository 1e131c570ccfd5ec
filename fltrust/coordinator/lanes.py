"""Threads for the authority's blocking calls: one lane for reads, one for writes, both bounded.

In the write lane a revocation overtakes what waits: it must not stand behind a thousand renewals.
"""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from enum import IntEnum
from typing import Any, TypeVar

from fltrust.errors import LimitExceeded, Unavailable

T = TypeVar("T")


class Urgency(IntEnum):
    """Lower goes first; equals go in order of arrival."""

    NOW = 0
    USUAL = 1
    STOP = 2


_Job = tuple[Urgency, int, "Future[Any] | None", Callable[[], Any] | None]


class Lane:
    """Runs callables on its own threads, the urgent ones first."""

    def __init__(self, name: str, *, threads: int, waiting: int) -> None:
        self._name = name
        self._waiting = waiting
        self._order = itertools.count()
        self._jobs: queue.PriorityQueue[_Job] = queue.PriorityQueue()
        self._is_closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"fltrust-{name}-{i}", daemon=True)
            for i in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    async def run(self, call: Callable[[], T], *, urgency: Urgency = Urgency.USUAL) -> T:
        """Run `call` on a thread of the lane and return what it returns.

        `LimitExceeded` (``busy``) if too many wait already; urgent calls are always taken. If the
        awaiting task is cancelled before the call began, it never begins; after that it runs to its end.
        """
        if self._is_closed:
            raise Unavailable("the coordinator is stopping")
        if urgency is not Urgency.NOW and self._jobs.qsize() >= self._waiting:
            raise LimitExceeded(
                f"expected at most {self._waiting} calls waiting to {self._name}, there are as many",
                reason="busy",
                hint="try again in a moment",
            )
        future: Future[T] = Future()
        self._jobs.put((urgency, next(self._order), future, call))
        return await asyncio.wrap_future(future)

    def close(self, timeout: float) -> None:
        """Let what was taken finish, then end the threads; waits up to `timeout` seconds for each."""
        self._is_closed = True
        for _ in self._threads:
            self._jobs.put((Urgency.STOP, next(self._order), None, None))
        for thread in self._threads:
            thread.join(timeout)

    def _work(self) -> None:
        while True:
            _, _, future, call = self._jobs.get()
            if future is None or call is None:
                return
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = call()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
            del future, call
