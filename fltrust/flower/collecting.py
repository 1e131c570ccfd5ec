"""Waiting for replies: each on its own, every wait bounded, every revocation heard at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Self

from flwr.app import Message

from fltrust.clock import Clock, SystemClock
from fltrust.errors import Refusal
from fltrust.flower.policy import WaitPolicy
from fltrust.flower.pullers import Pullers, PullFailed
from fltrust.flower.verdicts import Asked, Judge, Refused, Verdict
from fltrust.identity import Epoch
from fltrust.revocation.view import TrustView

_TICK = 0.5  # seconds between two looks at stalls and deadlines
_HEARSAY = 2.0
"""Seconds in which the feed may still say why the SuperLink has lost a node."""


class Collector:
    """Collects one verdict for each message that it was told to expect; for one thread at a time.

    A message is settled by the first of: its reply, judged; its participant's revocation or hold; a
    pull that does not come back for `WaitPolicy.stall`; the end of the time that was given. What
    comes after that is dropped. A node that the SuperLink has lost settles it only after a moment: the
    SuperLink drops who is revoked, and may hear of it before we do. Waiting is measured in real time,
    whatever time statements are verified at.
    """

    def __init__(
        self,
        pull: Callable[[Iterable[str]], Iterable[Message]],
        *,
        judge: Judge,
        view: TrustView,
        waits: WaitPolicy,
    ) -> None:
        self._judge = judge
        self._view = view
        self._waits = waits
        self._timer: Clock = SystemClock()
        self._inbox: SimpleQueue[tuple[str, Verdict | BaseException] | None] = SimpleQueue()
        self._open: dict[str, tuple[Asked, float]] = {}
        self._gone: dict[str, Refused] = {}
        self._looked_at: Epoch | None = None
        self._unsubscribe = view.subscribe(lambda _event: self._inbox.put(None))
        self._pullers = Pullers(
            pull,
            self._arrived,
            clock=self._timer,
            poll=waits.poll,
            patience=waits.patience,
            limit=waits.pullers,
        )

    def expect(self, asked: Mapping[str, Asked], *, within: timedelta) -> None:
        """Begin to pull the replies to these message ids, for as long as `within`."""
        deadline = self._timer.monotonic() + within.total_seconds()
        for message_id, who in asked.items():
            self._open[message_id] = (who, deadline)
        self._looked_at = None
        self._pullers.add(asked)

    @property
    def is_waiting(self) -> bool:
        """Whether anything that was expected is not settled yet."""
        return bool(self._open)

    def gather(self, *, wait: float = _TICK) -> list[tuple[str, Verdict]]:
        """The verdicts since the last call, by message id: at least one, or none after `wait` seconds.

        Raises what Flower raises when the run was stopped.
        """
        settled: list[tuple[str, Verdict]] = []
        until = self._timer.monotonic() + wait
        while self._open:
            self._settle_fallen(settled)
            self._settle_overdue(settled)
            left = until - self._timer.monotonic()
            if settled or left <= 0:
                break
            self._take(min(left, _TICK), settled)
        return settled

    def close(self) -> None:
        """Wait for nothing any more; returns at once. Idempotent."""
        self._pullers.close()
        self._open.clear()
        self._gone.clear()
        unsubscribe, self._unsubscribe = self._unsubscribe, _nothing
        unsubscribe()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _arrived(self, message_id: str, reply: Message | PullFailed) -> None:
        """In a puller's thread, so that several replies are verified at once."""
        found = self._open.get(message_id)
        if found is None:
            return
        verdict: Verdict | BaseException
        try:
            verdict = self._judge.judge(found[0], reply)
        except BaseException as error:
            verdict = error  # raised where somebody waits for it
        self._inbox.put((message_id, verdict))

    def _take(self, timeout: float, settled: list[tuple[str, Verdict]]) -> None:
        try:
            arrival = self._inbox.get(timeout=timeout)
        except Empty:
            return
        if arrival is None:
            return
        message_id, verdict = arrival
        if isinstance(verdict, BaseException):
            raise verdict
        if message_id not in self._open:
            return
        who, deadline = self._open[message_id]
        if isinstance(verdict, Refused) and verdict.is_gone:
            self._gone[message_id] = verdict
            self._open[message_id] = who, min(deadline, self._timer.monotonic() + _HEARSAY)
            return
        del self._open[message_id]
        settled.append((message_id, verdict))

    def _settle_fallen(self, settled: list[tuple[str, Verdict]]) -> None:
        """Give up whoever does not stand well any more; looked at whenever the epoch has moved."""
        now = self._view.epoch
        if now == self._looked_at:
            return
        self._looked_at = now
        for message_id, (who, _) in tuple(self._open.items()):
            error = who.node.fallen(self._view)
            if error is not None:
                self._give_up(message_id, Refused(who, error.reason, str(error)), settled)

    def _settle_overdue(self, settled: list[tuple[str, Verdict]]) -> None:
        for message_id in self._pullers.stalled(self._waits.stall):
            if message_id in self._open:
                bound = f"{self._waits.stall.total_seconds():.0f} s"
                text = f"its upload did not come within {bound} (for large models, raise WaitPolicy.stall)"
                self._give_up(message_id, Refused(self._open[message_id][0], Refusal.STALLED, text), settled)
        now = self._timer.monotonic()
        for message_id, (who, deadline) in tuple(self._open.items()):
            if now >= deadline:
                late = Refused(who, Refusal.NO_REPLY, "it did not reply in time")
                self._give_up(message_id, self._gone.get(message_id, late), settled)

    def _give_up(self, message_id: str, refused: Refused, settled: list[tuple[str, Verdict]]) -> None:
        self._pullers.abandon(message_id)
        self._gone.pop(message_id, None)
        del self._open[message_id]
        settled.append((message_id, refused))


def _nothing() -> None:
    return
