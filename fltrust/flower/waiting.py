"""An end to the endless wait for nodes.

Flower's strategies ask for node ids once a second until there are enough, for ever if a participant
was revoked meanwhile. Nothing tells the grid how many they want; that somebody asks again and again,
and sends nothing, does.
"""

from __future__ import annotations

import threading
from datetime import timedelta
from weakref import WeakKeyDictionary

from fltrust.clock import Clock, SystemClock
from fltrust.errors import QuorumNotMet
from fltrust.flower.policy import WaitPolicy

_DENSE = 5.0
"""Who asks again within this many seconds is waiting."""


class NodeWait:
    """Notices a thread that waits for nodes, and ends it at the bound that policy sets."""

    def __init__(self, waits: WaitPolicy, *, timer: Clock | None = None) -> None:
        self._waits = waits
        self._timer = timer or SystemClock()
        self._lock = threading.Lock()
        # Thread → since when, and when last. Not by its number: a later thread may get the same.
        self._asking: WeakKeyDictionary[threading.Thread, tuple[float, float]] = WeakKeyDictionary()
        self._has_begun = False

    def asked(self, standing: int) -> None:
        """Somebody asked for nodes and `standing` of them stand well. Raises `QuorumNotMet` at the bound."""
        now, asker = self._timer.monotonic(), threading.current_thread()
        with self._lock:
            since, last = self._asking.get(asker, (now, now))
            if now - last > _DENSE:
                since = now
            self._asking[asker] = (since, now)
        bound = self.bound.total_seconds()
        if now - since > bound:
            raise QuorumNotMet(
                f"the strategy has waited {bound:.0f} s for more nodes; connected, and of participants in "
                f"good standing, are {standing}",
                hint="lower min_train_nodes, min_evaluate_nodes or min_available_nodes of the strategy, "
                "or let more sites join",
            )

    @property
    def bound(self) -> timedelta:
        """How long a wait may last now: longer before the first exchange, while sites still connect."""
        with self._lock:
            return self._waits.nodes if self._has_begun else self._waits.startup

    def done(self) -> None:
        """Something is sent: nobody waits any more."""
        with self._lock:
            self._asking.clear()
            self._has_begun = True
