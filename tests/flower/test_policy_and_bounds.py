"""Policies are stated once and refuse what does not fit; counters and waits keep their promises."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from datetime import timedelta

import pytest
from flwr.app import Message
from hypothesis import given
from hypothesis import strategies as st

from fltrust.clock import SystemClock
from fltrust.errors import Malformed, QuorumNotMet
from fltrust.flower.numbering import RunNumbers
from fltrust.flower.policy import OnFailure, QuorumPolicy, TrustPolicy, WaitPolicy
from fltrust.flower.pullers import Pullers
from fltrust.flower.waiting import NodeWait
from fltrust.revocation.view import ReachMode
from fltrust.testing import FakeClock
from fltrust.updates import Phase, StructurePolicy


@pytest.mark.parametrize(
    ("policy", "asked", "needed"),
    [
        (QuorumPolicy(min_updates=None), 4, 0),
        (QuorumPolicy(min_updates=3), 4, 3),
        (QuorumPolicy(min_updates=None, min_fraction=0.5), 5, 3),
        (QuorumPolicy(min_updates=1, min_fraction=1.0), 4, 4),
        (QuorumPolicy(min_updates=None, min_fraction=0.7), 10, 7),
    ],
)
def test_a_quorum_is_the_larger_of_its_bounds(policy: QuorumPolicy, asked: int, needed: int) -> None:
    assert policy.needed(asked) == needed


@pytest.mark.parametrize("bad", [{"min_updates": -1}, {"min_fraction": 1.5}, {"min_fraction": -0.1}])
def test_a_quorum_that_cannot_be_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(Malformed):
        QuorumPolicy(**bad)  # type: ignore[arg-type]


def test_a_policy_is_read_from_a_run_config() -> None:
    policy = TrustPolicy.from_config(
        {
            "num-server-rounds": 3,
            "fltrust-min-updates": 3,
            "fltrust-min-fraction": 0.5,
            "fltrust-on-quorum-failure": "fail",
            "fltrust-timeout": 600,
            "fltrust-stall-timeout": 90.5,
            "fltrust-node-wait": 5,
            "fltrust-reach": "soft-fail",
            "fltrust-structure": "shapes",
            "fltrust-allow-non-finite": True,
            "fltrust-max-weight": 1000,
        }
    )
    assert policy.quorum == QuorumPolicy(3, 0.5, OnFailure.FAIL)
    assert policy.waits.timeout == timedelta(seconds=600)
    assert policy.waits.stall == timedelta(seconds=90.5)
    assert policy.reach.mode is ReachMode.SOFT_FAIL
    assert policy.structure is StructurePolicy.SHAPES
    assert policy.allow_non_finite
    assert policy.max_weight == 1000


@pytest.mark.parametrize(
    "config",
    [
        {"fltrust-min-update": 3},
        {"fltrust-reach": "whatever"},
        {"fltrust-structure": "loose"},
        {"fltrust-timeout": "soon"},
        {"fltrust-min-fraction": 3},
    ],
)
def test_a_run_config_with_a_key_or_value_that_does_not_fit_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        TrustPolicy.from_config(config)


@given(st.lists(st.tuples(st.sampled_from(list(Phase)), st.none() | st.integers(0, 9)), max_size=40))
def test_steps_never_repeat_and_rounds_never_go_back(claims: list[tuple[Phase, int | None]]) -> None:
    numbers, last, steps = RunNumbers(), dict.fromkeys(Phase, 0), []
    for phase, claimed in claims:
        steps.append(numbers.next_step())
        found = numbers.round_of(phase, claimed)
        assert found >= last[phase]
        assert claimed is not None or found > last[phase]
        last[phase] = found
    assert steps == list(range(1, len(claims) + 1))


def test_a_strategys_own_numbers_are_kept_and_a_second_one_goes_on() -> None:
    numbers = RunNumbers()
    assert [numbers.round_of(Phase.TRAIN, n) for n in (1, 2, 3, 1, 2)] == [1, 2, 3, 4, 5]
    assert numbers.round_of(Phase.EVALUATE, 1) == 1


def test_a_wait_for_nodes_ends_at_its_bound_and_a_pause_is_no_wait() -> None:
    clock = FakeClock()
    wait = NodeWait(WaitPolicy(nodes=timedelta(seconds=10), startup=timedelta(seconds=30)), timer=clock)

    def ask(times: int, every: float) -> None:
        for _ in range(times):
            wait.asked(2)
            clock.advance(timedelta(seconds=every))

    ask(20, every=6)  # somebody who looks now and then
    ask(30, every=1)  # at the start of a run sites still connect
    wait.done()
    with pytest.raises(QuorumNotMet, match="10 s"):
        ask(12, every=1)


def test_another_threads_looks_are_not_this_ones_wait() -> None:
    clock = FakeClock()
    wait = NodeWait(WaitPolicy(nodes=timedelta(seconds=3)), timer=clock)
    wait.done()
    for _ in range(6):
        thread = threading.Thread(target=wait.asked, args=(1,))
        thread.start()
        thread.join()
        clock.advance(timedelta(seconds=1))
    wait.asked(1)


class Slots:
    """Counts how many pulls are under way at once; an id in `stuck` never comes back."""

    def __init__(self, stuck: Iterable[str] = ()) -> None:
        self._lock = threading.Lock()
        self._now = 0
        self.most = 0
        self.stuck = set(stuck)
        self.release = threading.Event()

    def pull(self, ids: Iterable[str]) -> list[Message]:
        (message_id,) = ids
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            if message_id in self.stuck:
                self.release.wait(20)
                return []
            time.sleep(0.002)
            return [object()]  # type: ignore[list-item]
        finally:
            with self._lock:
                self._now -= 1


def _pullers(slots: Slots, done: list[str], limit: int) -> Pullers:
    return Pullers(
        slots.pull,
        lambda message_id, _reply: done.append(message_id),
        clock=SystemClock(),
        poll=timedelta(milliseconds=1),
        patience=timedelta(seconds=1),
        limit=limit,
    )


def _until(ready: object) -> None:
    end = time.monotonic() + 20
    while not ready():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.005)


def test_pullers_never_use_more_than_their_limit() -> None:
    slots, done = Slots(), list[str]()
    pullers = _pullers(slots, done, limit=3)
    ids = [str(i) for i in range(30)]
    pullers.add(ids)
    _until(lambda: len(done) == 30)
    assert sorted(done) == sorted(ids)
    assert slots.most <= 3


def test_stuck_pulls_are_told_and_once_abandoned_hold_nobody_up() -> None:
    slots, done = Slots(stuck=["a", "b"]), list[str]()
    pullers = _pullers(slots, done, limit=2)
    pullers.add(["a", "b", "c"])
    _until(lambda: set(pullers.stalled(timedelta(0))) == {"a", "b"})
    assert done == []
    pullers.abandon("a")
    _until(lambda: done == ["c"])
    pullers.close()
    slots.release.set()
    time.sleep(0.05)
    assert done == ["c"]  # what comes back late is nobody's
