"""Whatever arrives in whatever order, and whoever is barred in between: only what stands is aggregated.

Rounds of a real `TrustedGrid` over a `LocalFederation`: each site is held in its app until a rule lets
it answer, honestly or not; other rules revoke, hold and release. A model of a few lines says who must
be admitted, exactly.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fltrust.eventlog import EventLog
from fltrust.flower import TrustedClientApp, TrustedGrid, _private
from fltrust.flower.policy import TrustPolicy, WaitPolicy
from fltrust.identity import Epoch
from fltrust.revocation.events import EventKind
from fltrust.testing import LocalFederation, mischief
from fltrust.updates import (
    MAX_SEALED_SIGNED_BYTES,
    SealedRoundStatement,
    SignedStatement,
    unverified_statement,
)

SITES = 4
_sites = st.integers(0, SITES - 1)
_POLICY = TrustPolicy(waits=WaitPolicy(poll=timedelta(milliseconds=2)), weight_key="num-examples")


class Recorder(EventLog):
    """Lets a rule wait until the grid has made up its mind about a site."""

    def __init__(self) -> None:
        super().__init__(None, process="test")
        self._told = threading.Condition()
        self._verdicts: dict[str, str] = {}

    def emit(self, event: str, **fields: Any) -> None:
        if event in ("update-verified", "update-refused"):
            with self._told:
                self._verdicts[str(fields["participant"]).rsplit("/", 1)[-1]] = event
                self._told.notify_all()

    def forget(self) -> None:
        with self._told:
            self._verdicts.clear()

    def wait(self, name: str) -> str:
        with self._told:
            assert self._told.wait_for(lambda: name in self._verdicts, 20), f"no verdict on {name}"
            return self._verdicts[name]


def _odd_keys(message: Message) -> RecordDict:
    arrays = ArrayRecord({"other": Array(np.zeros(3))})
    return RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})})


def _other_shape(message: Message) -> RecordDict:
    arrays = ArrayRecord({"w": Array(np.zeros((1, 1), dtype=np.float64))})
    return RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})})


def _nan(message: Message) -> RecordDict:
    arrays = ArrayRecord({"w": Array(np.full(1, np.nan))})
    return RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})})


_AFTER_SIGNING: dict[str, Callable[[Message, Message], Message | None]] = {
    "tampered": mischief.tamper,
    "stripped": mischief.strip,
    "forged": mischief.forge,
    "garbled": mischief.garble,
    "echoed": mischief.echo,
    "emptied": mischief.empty,
}
_BEFORE_SIGNING = {"odd keys": _odd_keys, "other shape": _other_shape, "not finite": _nan}
_HOSTILE = [*_AFTER_SIGNING, *_BEFORE_SIGNING, "replayed", "crossed", "raised"]


class Site:
    """One site's app: waits until it is told how to answer."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.how = ""
        self.go = threading.Event()
        self.reached = threading.Event()

    def app(self) -> TrustedClientApp:
        made = TrustedClientApp()

        @made.train()
        def train(message: Message, context: Context) -> Message:
            self.reached.set()
            self.go.wait(60)
            if self.how == "raised":
                raise RuntimeError("no")
            make = _BEFORE_SIGNING.get(self.how, self._honest)
            return Message(make(message), reply_to=message)

        return made

    def _honest(self, message: Message) -> RecordDict:
        arrays = ArrayRecord({"w": Array(message.content["arrays"]["w"].numpy() + 2.0**self.index)})
        return RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})})


class Rounds(RuleBasedStateMachine):
    """Drives rounds, one after the other, and knows who must be in each."""

    @initialize()
    def begin_federation(self) -> None:
        self.sites = [Site(i) for i in range(SITES)]
        apps = {f"site-{s.index}": s.app() for s in self.sites}
        self.federation = LocalFederation(TrustedClientApp(), SITES, apps=apps)
        self.told = Recorder()
        self.grid = TrustedGrid(
            self.federation.grid,
            agent=self.federation.grid.aggregator_agent,
            policy=_POLICY,
            clock=self.federation.clock,
            events=self.told,
        ).start()
        self.standing = dict.fromkeys(range(SITES), "active")
        self.pending: set[int] = set()
        self.honest: set[int] = set()
        self.round = 0
        self.thread: threading.Thread | None = None
        self.replies: list[Message] | BaseException = []

    def teardown(self) -> None:
        for site in self.sites:
            site.how = "raised"
            site.go.set()
        if self.thread is not None:
            self.thread.join(30)
        self.grid.close()
        self.federation.close()

    # --- rules

    @precondition(lambda self: self.thread is None and "active" in self.standing.values())
    @rule()
    def open_round(self) -> None:
        self.round += 1
        self._settle_view()
        self.told.forget()
        self.pending = {i for i, how in self.standing.items() if how == "active"}
        self.honest = set()
        for site in self.sites:
            site.reached.clear()
            site.go.clear()
        content = RecordDict(
            {
                "arrays": ArrayRecord({"w": Array(np.zeros(1))}),
                "config": ConfigRecord({"server-round": self.round}),
            }
        )
        # Everybody is addressed, also those who are barred: the grid has to know better.
        # Flower keeps for the process whose run it is; the example before may still have a thread.
        _private.become_server_app(int(self.federation.run_id))
        messages = [Message(content, self._participant(i).node_id, "train") for i in range(SITES)]
        self.thread = threading.Thread(target=self._exchange, args=(messages,))
        self.thread.start()
        for i in self.pending:
            assert self.sites[i].reached.wait(20), f"site-{i} never got its instruction"

    @precondition(lambda self: bool(self.pending))
    @rule(i=_sites)
    def arrive_honestly(self, i: int) -> None:
        self._arrive(i, "honest")

    @precondition(lambda self: bool(self.pending))
    @rule(i=_sites, how=st.sampled_from(_HOSTILE))
    def arrive_hostile(self, i: int, how: str) -> None:
        self._arrive(i, how)

    @precondition(lambda self: sum(how != "revoked" for how in self.standing.values()) > 1)
    @rule(i=_sites)
    def revoke(self, i: int) -> None:
        self._bar(i, "revoked")

    @rule(i=_sites)
    def hold(self, i: int) -> None:
        if self.standing[i] == "active":
            self._bar(i, "held")

    @rule(i=_sites)
    def release(self, i: int) -> None:
        if self.standing[i] == "held":
            self.federation.release(f"site-{i}")
            self.standing[i] = "active"
            self._settle_view()

    # --- what must hold

    @invariant()
    def nobody_who_was_revoked_before_a_seal_is_in_it(self) -> None:
        if not hasattr(self, "federation") or self.thread is not None:
            return
        events = self.federation.coordinator.authority.events(Epoch(0), 1000, reader=None)
        revoked = {e.subject: e.epoch for e in events if e.kind is EventKind.REVOKED}
        for record in self.federation.rounds():
            assert record.receipt is not None
            receipt = unverified_statement(
                SignedStatement.from_bytes(record.receipt, limit=MAX_SEALED_SIGNED_BYTES)
            )
            assert isinstance(receipt, SealedRoundStatement)
            for entry in receipt.admitted:
                assert revoked.get(entry.participant, receipt.epoch.next()) > receipt.epoch

    # --- inside

    def _arrive(self, i: int, how: str) -> None:
        if i not in self.pending:
            return
        site, name = self.sites[i], f"site-{i}"
        site.how = how
        self._participant(i).mischief = self._trick(i, how)
        site.go.set()
        verdict = self.told.wait(name)
        self.pending.discard(i)
        if how == "honest":
            assert verdict == "update-verified"
            self.honest.add(i)
        else:
            assert verdict == "update-refused", how
        self._end_if_settled()

    def _trick(self, i: int, how: str) -> Callable[[Message, Message], Message | None] | None:
        if how in _AFTER_SIGNING:
            return _AFTER_SIGNING[how]
        if how == "replayed":  # an answer of an earlier round, or a forgery where there is none
            old = self._participant(i).sent[:1] if self.round > 1 else []
            return _sending(old[0]) if old and old[0].has_content() else mischief.forge
        if how == "crossed":  # another site's answer in this round
            others = [
                p.sent[-1]
                for k, p in enumerate(self.federation.participants)
                if k != i and p.sent and p.sent[-1].has_content()
            ]
            return _sending(others[-1]) if others else mischief.forge
        return None

    def _bar(self, i: int, how: str) -> None:
        if self.standing[i] == "revoked":
            return
        name = f"site-{i}"
        (self.federation.revoke if how == "revoked" else self.federation.hold)(name)
        self.standing[i] = how
        self._settle_view()
        if i in self.pending:
            assert self.told.wait(name) == "update-refused"
            self.pending.discard(i)
            self.sites[i].how = "raised"
            self.sites[i].go.set()  # its late answer is nobody's
            self._end_if_settled()

    def _end_if_settled(self) -> None:
        if self.pending or self.thread is None:
            return
        self.thread.join(30)
        assert not self.thread.is_alive(), "the round does not end"
        self.thread = None
        if isinstance(self.replies, BaseException):
            raise self.replies
        admitted = {
            self._index(reply): float(reply.content["arrays"]["w"].numpy()[0])
            for reply in self.replies
            if reply.has_content()
        }
        expected = {i for i in self.honest if self.standing[i] == "active"}
        assert admitted == {i: 2.0**i for i in expected}
        assert sum(reply.has_error() for reply in self.replies) == SITES - len(expected)
        assert set(self.grid.reports[-1].admitted) == {f"site-{i}" for i in expected}

    def _exchange(self, messages: list[Message]) -> None:
        try:
            self.replies = list(self.grid.send_and_receive(messages, timeout=60))
        except BaseException as error:  # told to the rule that waits
            self.replies = error

    def _settle_view(self) -> None:
        head = self.federation.coordinator.authority.head
        assert self.grid.view.wait_until(lambda state: state.epoch >= head, 20)

    def _participant(self, i: int) -> Any:
        return self.federation[f"site-{i}"]

    def _index(self, reply: Message) -> int:
        return next(i for i in range(SITES) if self._participant(i).node_id == reply.metadata.src_node_id)


def _sending(other: Message) -> Callable[[Message, Message], Message]:
    return lambda _asked, reply: _private.copy_message(reply, other.content)


TestRounds = Rounds.TestCase
TestRounds.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
