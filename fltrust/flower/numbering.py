"""The numbers of a run's exchanges: steps that never repeat, and rounds that never go back.

Kept for the process, by run: two strategies that run one after the other in one ServerApp both
count their rounds from 1, and a participant that has answered round 5 refuses an instruction for round 1
as a replay. So the second one's first round is the run's sixth.
"""

from __future__ import annotations

import threading
from collections import defaultdict

from flwr.app import ConfigRecord, Message

from fltrust.identity import RunId
from fltrust.updates import Phase

_ROUND_KEY = "server-round"
_MAX_DIGITS = 9


class RunNumbers:
    """The counters of one run; safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._step = 0
        self._has_begun = False
        self._offset: defaultdict[Phase, int] = defaultdict(int)
        self._claimed: defaultdict[Phase, int] = defaultdict(int)
        self._highest: defaultdict[Phase, int] = defaultdict(int)

    def next_step(self) -> int:
        """The next exchange, from 1."""
        with self._lock:
            self._step += 1
            return self._step

    def initial_step(self) -> int:
        """The step that stands for the arrays a strategy begins with: 0, or later on the next one."""
        with self._lock:
            if self._has_begun or self._step:
                self._step += 1
            self._has_begun = True
            return self._step

    def round_of(self, phase: Phase, claimed: int | None) -> int:
        """The run's round for what the strategy calls round `claimed`; None is a round of its own."""
        with self._lock:
            if claimed is None:
                self._highest[phase] += 1
                return self._highest[phase]
            if claimed < self._claimed[phase]:  # somebody began to count anew
                self._offset[phase] = self._highest[phase]
            self._claimed[phase] = claimed
            self._offset[phase] = max(self._offset[phase], self._highest[phase] - claimed)
            self._highest[phase] = self._offset[phase] + claimed
            return self._highest[phase]


_runs: dict[RunId, RunNumbers] = {}
_runs_lock = threading.Lock()


def numbers_of(run_id: RunId) -> RunNumbers:
    """The counters of this run in this process."""
    with _runs_lock:
        return _runs.setdefault(run_id, RunNumbers())


def claimed_round(message: Message) -> int | None:
    """The strategy's own number for the round, where the message says it: ``server-round`` in its
    settings, or (legacy strategies) the group id."""
    for record in message.content.values():
        if isinstance(record, ConfigRecord):
            number = record.get(_ROUND_KEY)
            if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 10**_MAX_DIGITS:
                return number
    group = message.metadata.group_id
    return int(group) if group.isascii() and group.isdigit() and len(group) <= _MAX_DIGITS else None
