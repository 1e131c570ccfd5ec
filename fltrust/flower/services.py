"""What the exchanges of one run share: who signs and decides, what is demanded, and what is written down."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from flwr.serverapp import Grid

from fltrust.agent.ports import AggregatorAgent
from fltrust.clock import Clock
from fltrust.errors import QuorumNotMet, Unavailable
from fltrust.eventlog import EventLog
from fltrust.flower.nodes import NodeDirectory
from fltrust.flower.numbering import RunNumbers
from fltrust.flower.policy import OnFailure, TrustPolicy
from fltrust.flower.retention import Kept, Retainer
from fltrust.flower.verdicts import Judge
from fltrust.identity import SpiffeId
from fltrust.revocation.view import ReachMode, TrustView
from fltrust.rounds.types import RoundKey
from fltrust.updates import Verifier

_log = logging.getLogger("fltrust.flower")

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 1.0
_TRAINED = 64  # an aggregate of more than one is not recorded anyway
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ExchangeReport:
    """How one exchange ended, for people and notebooks: participants by name, each refusal with its reason.

    `receipt` is the coordinator's `SignedStatement` in bytes and `epoch` the one it names; both are
    None where the reach policy went on without a seal.
    """

    key: RoundKey
    admitted: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]
    epoch: int | None
    receipt: bytes | None


@dataclass(frozen=True, slots=True)
class Trained:
    """One exchange of training that is over: how many updates counted, and with which weights."""

    key: RoundKey
    count: int
    weights: tuple[tuple[SpiffeId, str], ...]
    is_sealed: bool


@dataclass(slots=True)
class Services:
    """What every exchange of a run needs."""

    grid: Grid
    agent: AggregatorAgent
    view: TrustView
    nodes: NodeDirectory
    judge: Judge
    verifier: Callable[[], Verifier]
    """Gives the verifier of the moment: roots may change while a run goes on."""
    policy: TrustPolicy
    numbers: RunNumbers
    clock: Clock
    events: EventLog
    retainer: Retainer | None = None
    reports: list[ExchangeReport] = field(default_factory=list)
    trained: deque[Trained] = field(default_factory=lambda: deque(maxlen=_TRAINED))
    """Exchanges of training since the last aggregate was recorded (`fltrust.flower.recording`)."""

    def retain(self, key: RoundKey, kept: Sequence[Kept]) -> None:
        """Keep a round's contents where policy says so; a round that is not kept is told loudly."""
        if self.retainer is None or not kept:
            return
        why = self.retainer.keep(key.step, key.round, kept)
        if why is not None:
            _log.error("the updates of round %d are NOT kept, it cannot be replayed: %s", key.round, why)
        self.emit(key, "round-not-retained" if why else "round-retained", detail=why or "", kept=len(kept))

    def patiently(self, call: Callable[[], _T], what: str) -> _T:
        """Repeat a call that found nobody, for as long as policy is patient; then raise `Unavailable`."""
        end = time.monotonic() + self.policy.waits.patience.total_seconds()
        pause = _FIRST_PAUSE
        while True:
            try:
                return call()
            except Unavailable as error:
                if time.monotonic() >= end:
                    raise
                _log.warning("cannot %s yet: %s", what, error)
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def go_on_without(self, error: Unavailable, *, what: str, key: RoundKey) -> None:
        """Where policy lets a run go on without the coordinator, say so and return; otherwise raise."""
        if self.policy.reach.mode is ReachMode.HARD_FAIL:
            raise error
        self.policy.reach.check(self.view.age())
        _log.warning("round %d is not %s: %s; going on, as policy says", key.round, what, error)
        self.emit(key, f"round-not-{what}", reason=error.reason)

    def emit(self, key: RoundKey, event: str, **fields: str | int) -> None:
        """Write one event of an exchange."""
        self.events.emit(
            event,
            run_id=str(int(key.run_id)),
            round=key.round,
            phase=str(key.phase),
            step=key.step,
            **fields,
        )

    def meets_quorum(self, *, round_: int, got: int, asked: int, missing: str) -> bool:
        """Whether enough updates count. Too few raise `QuorumNotMet`, or give False, as policy says."""
        quorum = self.policy.quorum
        needed = quorum.needed(asked)
        if got >= needed:
            return True
        text = (
            f"round {round_}: expected at least {needed} updates of {asked}, {got} were admitted "
            f"({missing or 'nobody could be asked'})"
        )
        if quorum.on_failure is OnFailure.FAIL:
            raise QuorumNotMet(text, hint="lower the quorum, or find out what happened at the sites")
        _log.warning("%s; the model stays as it was", text)
        return False
