"""A `TrustedGrid` sends to participants in good standing, believes nothing unsigned, and loses no round."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from app_world import (
    QUICK,
    Gate,
    answering,
    honest,
    instruction,
    model,
    plus_one,
    refusals,
    train,
    trusted,
    weights,
)
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from fltrust.errors import CoordinatorUnavailable, QuorumNotMet, Refusal, StaleView
from fltrust.flower import _private
from fltrust.flower.policy import OnFailure, QuorumPolicy, TrustPolicy
from fltrust.flower.records import RESERVED
from fltrust.identity import NodeId
from fltrust.revocation.view import ReachMode, ReachPolicy
from fltrust.rounds.types import RoundStatus
from fltrust.testing import FakeClock, LocalFederation, mischief
from fltrust.updates import Phase, StructurePolicy

# --- what goes right


def test_what_is_aggregated_is_what_the_coordinator_sealed() -> None:
    with LocalFederation(honest(), 3) as federation:
        result, reports = train(federation, rounds=2, evaluate=True)
        record = federation.rounds()
    assert weights(result.arrays) == [2.0] * 4
    assert [(r.key.step, r.key.round, r.key.phase) for r in reports] == [
        (1, 1, Phase.TRAIN),
        (2, 1, Phase.EVALUATE),
        (3, 2, Phase.TRAIN),
        (4, 2, Phase.EVALUATE),
    ]
    assert [r.receipt for r in reports] == [r.receipt for r in record]
    assert all(r.status is RoundStatus.SEALED and len(r.evidence) == 3 for r in record)


def test_replies_come_in_the_order_of_the_messages_and_without_our_record() -> None:
    with LocalFederation(honest(), 4) as federation, trusted(federation) as grid:
        first, gate = federation.participants[0], Gate()
        first.before = gate
        threading.Timer(0.1, gate.opened.set).start()  # the first to be asked is the last to answer
        ids = [p.node_id for p in federation.participants]
        replies = list(grid.send_and_receive([instruction(i) for i in ids]))
    assert [r.metadata.src_node_id for r in replies] == ids
    assert all(RESERVED not in r.content for r in replies)


def test_a_large_model_is_digested_once_and_shared_by_all_messages() -> None:
    with LocalFederation(honest(), 3) as federation, trusted(federation) as grid:
        shared = RecordDict({"arrays": model(), "config": ConfigRecord({"server-round": 1})})
        messages = [Message(shared, p.node_id, "train") for p in federation.participants]
        grid.send_and_receive(messages)
        assert list(shared) == ["arrays", "config"]  # the app's own records are left as they were
        data = {id(p.received[0].content["arrays"]["w"].data) for p in federation.participants}
        assert data == {id(shared["arrays"]["w"].data)}


def test_nothing_to_send_is_no_round() -> None:
    with LocalFederation(honest(), 1) as federation, trusted(federation) as grid:
        assert list(grid.send_and_receive([])) == []
        assert federation.rounds() == ()


def test_a_node_asked_twice_is_asked_in_two_steps() -> None:
    with LocalFederation(honest(), 2) as federation, trusted(federation) as grid:
        ids = [p.node_id for p in federation.participants]
        replies = list(grid.send_and_receive([instruction(i) for i in [*ids, ids[0]]]))
        assert sorted(r.metadata.src_node_id for r in replies) == sorted([*ids, ids[0]])
        assert [len(r.cohort) for r in federation.rounds()] == [2, 1]


def test_messages_of_several_kinds_are_one_exchange_each() -> None:
    with LocalFederation(honest(), 2) as federation, trusted(federation) as grid:
        one, two = (p.node_id for p in federation.participants)
        replies = list(grid.send_and_receive([instruction(one), instruction(two, kind="query")]))
        assert all(r.has_content() for r in replies)
        assert {r.key.phase for r in federation.rounds()} == {Phase.TRAIN, Phase.QUERY}


def test_a_second_strategy_in_one_run_goes_on_where_the_first_ended() -> None:
    with LocalFederation(honest(), 2) as federation:
        train(federation, rounds=2)
        _, reports = train(federation, rounds=2)  # it counts its rounds from 1 again
        assert [len(r.admitted) for r in reports] == [2, 2]
        assert [r.key.round for r in federation.rounds()] == [1, 2, 3, 4]


def test_a_message_without_a_round_is_a_round_of_its_own() -> None:
    with LocalFederation(honest(), 1) as federation, trusted(federation) as grid:
        node = federation["site-0"].node_id
        for _ in range(2):
            message = Message(RecordDict({"arrays": model()}), node, "train")
            assert next(iter(grid.send_and_receive([message]))).has_content()
        assert [r.key.round for r in federation.rounds()] == [1, 2]


# --- by hand


def pulled(grid: object, ids: list[str]) -> list[Message]:
    replies: list[Message] = []
    end = time.monotonic() + 20
    while len(replies) < len(ids) and time.monotonic() < end:
        replies.extend(grid.pull_messages(ids))  # type: ignore[attr-defined]
    return replies


def test_what_is_pushed_and_pulled_by_hand_is_signed_verified_and_sealed_as_well() -> None:
    with LocalFederation(honest(), 2) as federation, trusted(federation) as grid:
        federation["site-1"].mischief = mischief.tamper
        ids = list(grid.push_messages([instruction(p.node_id) for p in federation.participants]))
        by_node = {r.metadata.src_node_id: r for r in pulled(grid, ids)}
        good, bad = (by_node[p.node_id] for p in federation.participants)
        assert good.has_content()
        assert RESERVED not in good.content
        assert Refusal.DIGEST_MISMATCH in str(bad.error.reason)
        assert list(grid.pull_messages(ids)) == []  # each once
        assert [r.status for r in federation.rounds()] == [RoundStatus.SEALED] * 2


def test_ids_that_this_grid_did_not_push_are_not_pulled() -> None:
    with LocalFederation(honest(), 1) as federation, trusted(federation) as grid:
        (message_id,) = federation.grid.push_messages([instruction(federation["site-0"].node_id)])
        assert list(grid.pull_messages([message_id, "unknown"])) == []


def test_a_message_pushed_to_nobody_has_no_id() -> None:
    with LocalFederation(honest(), 1) as federation, trusted(federation) as grid:
        federation.revoke("site-0")
        grid.view.wait_until(lambda s: s.epoch == federation.coordinator.authority.head, 5)
        assert list(grid.push_messages([instruction(federation["site-0"].node_id), instruction(77)])) == [
            "",
            "",
        ]


def test_a_revoked_site_is_not_waited_for_by_hand_either() -> None:
    gate = Gate()
    with LocalFederation(honest(), 1) as federation, trusted(federation) as grid:
        federation["site-0"].before = gate
        ids = list(grid.push_messages([instruction(federation["site-0"].node_id)]))
        assert gate.reached.wait(10)
        federation.revoke("site-0")
        (reply,) = pulled(grid, ids)
        gate.opened.set()
    assert Refusal.REVOKED in str(reply.error.reason)


# --- hostile replies: each is refused, and the others' round goes on

MISCHIEF = [
    (mischief.tamper, Refusal.DIGEST_MISMATCH),
    (mischief.strip, Refusal.UNSIGNED),
    (mischief.forge, Refusal.MALFORMED),
    (mischief.garble, Refusal.MALFORMED),
    (mischief.echo, Refusal.CERTIFICATE_PATH),
    (mischief.empty, Refusal.UNSIGNED),
]


@pytest.mark.parametrize(("trick", "reason"), MISCHIEF, ids=lambda v: getattr(v, "__name__", str(v)))
def test_what_was_done_to_a_reply_after_signing_is_found(
    trick: Callable[[Message, Message], Message], reason: Refusal
) -> None:
    with LocalFederation(honest(), 3) as federation:
        federation["site-1"].mischief = trick
        result, (report,) = train(federation)
        (record,) = federation.rounds()
    assert weights(result.arrays) == [1.0] * 4
    assert set(report.admitted) == {"site-0", "site-2"}
    found = refusals(report)["site-1"]
    assert found == reason or (trick is mischief.echo and found.startswith(("wrong-", "certificate-")))
    assert len(record.evidence) == 2


def test_a_replayed_update_is_refused_in_every_later_round() -> None:
    with LocalFederation(honest(), 3) as federation:
        federation["site-1"].mischief = mischief.Replay()
        _, reports = train(federation, rounds=3)
    assert [len(r.admitted) for r in reports] == [3, 2, 2]
    assert {refusals(r).get("site-1") for r in reports[1:]} == {Refusal.WRONG_ROUND}


def test_another_sites_signed_update_is_refused() -> None:
    with LocalFederation(honest(), 3) as federation:
        stolen: list[Message] = []
        caught = threading.Event()

        def show(_asked: Message, reply: Message) -> Message:
            stolen.append(reply)
            caught.set()
            return reply

        def steal(_asked: Message, reply: Message) -> Message:
            caught.wait(10)
            return _private.copy_message(reply, stolen[0].content)

        federation["site-0"].mischief = show
        federation["site-1"].mischief = steal
        _, (report,) = train(federation)
    assert refusals(report) == {"site-1": Refusal.WRONG_PARTICIPANT}


def test_what_a_reply_claims_about_itself_does_not_count() -> None:
    def lie(_asked: Message, reply: Message) -> Message:
        vars(reply.metadata).update(_src_node_id=1, _reply_to_message_id="another", _run_id=3)
        return reply

    with LocalFederation(honest(), 2) as federation, trusted(federation) as grid:
        federation["site-0"].mischief = lie
        ids = [p.node_id for p in federation.participants]
        replies = list(grid.send_and_receive([instruction(i) for i in ids]))
    assert [r.metadata.src_node_id for r in replies] == ids
    assert all(r.has_content() and r.metadata.run_id == federation.run_id for r in replies)


def test_an_unsigned_reply_says_what_to_do() -> None:
    with LocalFederation(honest(), 1) as federation, trusted(federation) as grid:
        federation["site-0"].mischief = mischief.strip
        (reply,) = grid.send_and_receive([instruction(federation["site-0"].node_id)])
    assert "is the app wrapped in TrustedClientApp?" in str(reply.error.reason)


def _with(**records: ArrayRecord | MetricRecord | ConfigRecord) -> Callable[[Message], RecordDict]:
    def make(message: Message) -> RecordDict:
        honest_one = plus_one(message)
        for name, record in records.items():
            honest_one[name] = record
        return honest_one

    return make


def _arrays(**arrays: np.ndarray) -> ArrayRecord:
    return ArrayRecord({key: Array(value) for key, value in arrays.items()})


def _raw(dtype: str, shape: tuple[int, ...], data: bytes, stype: str = "numpy.ndarray") -> ArrayRecord:
    return ArrayRecord({"w": Array(dtype=dtype, shape=shape, stype=stype, data=data)})


_W = np.zeros(4, dtype=np.float32)
HOSTILE = {
    "other key": _with(arrays=_arrays(v=_W)),
    "missing tensor": _with(arrays=ArrayRecord()),
    "extra tensor": _with(arrays=_arrays(w=_W, x=_W)),
    "other dtype": _with(arrays=_arrays(w=_W.astype(np.float64))),
    "other shape": _with(arrays=_arrays(w=_W.reshape(2, 2))),
    "lying shape": _with(arrays=_raw("float32", (4,), Array(np.zeros(400_000)).data)),
    "a pickle": _with(arrays=_raw("float32", (4,), b"\x80\x04.", stype="pickle")),
    "no array at all": _with(arrays=_raw("float32", (4,), b"\x93NUMPY")),
    "second arrays": _with(more=_arrays(w=_W)),
    "odd metric": _with(metrics=MetricRecord({"num-examples": 1, "loss": 0.5, "odd": 1})),
    "no weight": _with(metrics=MetricRecord({"loss": 0.5})),
    "weights in a list": _with(metrics=MetricRecord({"num-examples": [1, 2], "loss": 0.5})),
    "list for a number": _with(metrics=MetricRecord({"num-examples": 1, "loss": [0.5]})),
    "negative weight": _with(metrics=MetricRecord({"num-examples": -3, "loss": 0.5})),
    "metrics twice": _with(again=MetricRecord({"num-examples": 1})),
    "nothing": lambda _message: RecordDict(),
    "settings alone": lambda message: RecordDict({"config": message.content["config"]}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_signed_reply_of_an_odd_structure_is_refused_and_the_round_goes_on(name: str) -> None:
    with LocalFederation(honest(), 3, apps={"site-1": answering(HOSTILE[name])}) as federation:
        result, reports = train(federation, rounds=2)
    assert weights(result.arrays) == [2.0] * 4
    assert [refusals(r) for r in reports] == [{"site-1": Refusal.STRUCTURE}] * 2


_NOT_FINITE = {
    "nan in a tensor": _with(arrays=_arrays(w=np.array([0, np.nan, 0, 0], dtype=np.float32))),
    "inf in a tensor": _with(arrays=_arrays(w=np.array([0, np.inf, 0, 0], dtype=np.float32))),
    "nan in a metric": _with(metrics=MetricRecord({"num-examples": 1, "loss": float("nan")})),
    "nan for a weight": _with(metrics=MetricRecord({"num-examples": float("nan"), "loss": 0.5})),
}


@pytest.mark.parametrize("name", _NOT_FINITE)
def test_what_is_not_finite_is_refused_unless_policy_says_otherwise(name: str) -> None:
    with LocalFederation(honest(), 3, apps={"site-1": answering(_NOT_FINITE[name])}) as federation:
        _, (report,) = train(federation)
        assert refusals(report) == {"site-1": Refusal.NOT_FINITE}
        _, (report,) = train(federation, policy=TrustPolicy(waits=QUICK, allow_non_finite=True))
    # A weight is never anything but finite: it would spoil everybody's update.
    assert refusals(report) == ({"site-1": Refusal.STRUCTURE} if "weight" in name else {})


def test_a_weight_above_the_policys_bound_is_refused() -> None:
    greedy = _with(metrics=MetricRecord({"num-examples": 1_000_000, "loss": 0.5}))
    with LocalFederation(honest(), 3, apps={"site-1": answering(greedy)}) as federation:
        _, (report,) = train(federation, policy=TrustPolicy(waits=QUICK, max_weight=1000))
        assert refusals(report) == {"site-1": Refusal.STRUCTURE}
        _, (report,) = train(federation)
        assert refusals(report) == {}


def test_sites_that_all_weigh_nothing_do_not_end_the_run() -> None:
    idle = _with(metrics=MetricRecord({"num-examples": 0, "loss": 0.5}))
    with LocalFederation(answering(idle), 2) as federation:
        result, (report,) = train(federation)
    assert dict(result.arrays) == {}  # Flower's word for "as it was"
    assert set(refusals(report).values()) == {Refusal.STRUCTURE}


def test_a_counter_that_averaging_made_a_float_may_come_back_an_integer() -> None:
    # A batch norm's counter: int64 at first, float64 once averaged, int64 in every client's model.
    def loads_and_trains(message: Message) -> RecordDict:
        w, n = (message.content["arrays"][key].numpy() for key in ("w", "n"))
        arrays = _arrays(w=(w + 1).astype(np.float32), n=np.array(n + 1, dtype=np.int64))
        return RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})})

    with LocalFederation(answering(loads_and_trains), 2) as federation:
        _, reports = train(federation, rounds=3, start=_arrays(w=_W, n=np.array(0)))
    assert [len(r.admitted) for r in reports] == [2, 2, 2]


def test_a_serialisation_of_its_own_passes_under_the_opaque_policy() -> None:
    def own(message: Message) -> RecordDict:
        return RecordDict({"arrays": _raw("mine", (1,), b"opaque", stype="mine.format")})

    with LocalFederation(answering(own), 1) as federation:
        node = federation["site-0"].node_id
        with trusted(federation) as grid:
            (reply,) = grid.send_and_receive([instruction(node)])
        assert Refusal.STRUCTURE in str(reply.error.reason)
        opaque = TrustPolicy(waits=QUICK, structure=StructurePolicy.OPAQUE)
        with trusted(federation, opaque) as grid:
            (reply,) = grid.send_and_receive([instruction(node, server_round=2)])
        assert reply.has_content()


# --- standing


def test_nodes_of_the_revoked_and_of_strangers_are_not_shown_and_not_sent_to() -> None:
    with LocalFederation(honest(), 3) as federation, trusted(federation) as grid:
        federation.revoke("site-1")
        grid.view.wait_until(lambda s: s.epoch == federation.coordinator.authority.head, 5)
        assert set(grid.get_node_ids()) == {federation[n].node_id for n in ("site-0", "site-2")}
        stranger = 12345
        replies = list(
            grid.send_and_receive([instruction(i) for i in (federation["site-1"].node_id, stranger)])
        )
        assert [r.has_error() for r in replies] == [True, True]
        assert Refusal.REVOKED in str(replies[0].error.reason)
        assert Refusal.UNKNOWN_IDENTITY in str(replies[1].error.reason)
        assert federation["site-1"].received == []


@pytest.mark.parametrize("bar", ["revoke", "hold"])
def test_a_site_that_is_barred_while_it_trains_is_not_waited_for(bar: str) -> None:
    gate = Gate()
    with LocalFederation(honest(), 4) as federation:
        federation["site-2"].before = gate

        def act() -> None:
            assert gate.reached.wait(10)
            getattr(federation, bar)("site-2")

        thread = threading.Thread(target=act)
        thread.start()
        result, reports = train(federation, rounds=2)
        thread.join()
        gate.opened.set()
    assert weights(result.arrays) == [2.0] * 4
    assert refusals(reports[0]) == {"site-2": Refusal.REVOKED if bar == "revoke" else Refusal.HELD}
    assert [len(r.admitted) for r in reports] == [3, 3]


def test_a_reply_that_arrived_is_dropped_when_its_site_is_revoked_before_the_seal() -> None:
    slow = Gate()
    with LocalFederation(honest(), 3) as federation:
        federation["site-2"].before = slow

        def act() -> None:
            assert slow.reached.wait(10)
            while len(federation["site-1"].sent) < 1:  # it has answered
                time.sleep(0.01)
            time.sleep(0.2)  # and its answer is most likely verified by now
            federation.revoke("site-1")
            slow.opened.set()

        thread = threading.Thread(target=act)
        thread.start()
        _, (report,) = train(federation)
        thread.join()
        (record,) = federation.rounds()
    assert refusals(report) == {"site-1": Refusal.REVOKED}
    assert len(record.evidence) == 2


@pytest.mark.parametrize("is_revoked", [True, False])
def test_a_node_that_the_superlink_lost_is_refused_as_revoked_where_the_feed_says_so_a_moment_later(
    is_revoked: bool,
) -> None:
    gate = Gate()
    with LocalFederation(honest(), 3) as federation:
        lost = federation["site-2"]
        lost.before = gate

        def act() -> None:
            assert gate.reached.wait(10)
            (message,) = lost.received
            gone = Error(_private.ErrorCode.NODE_UNAVAILABLE, "Node Unavailable")
            federation.grid.inject(message.metadata.message_id, Message(gone, reply_to=message))
            time.sleep(0.5)  # by now it was pulled
            if is_revoked:
                federation.revoke("site-2")

        thread = threading.Thread(target=act)
        thread.start()
        _, (report,) = train(federation)
        thread.join()
        gate.opened.set()
    assert refusals(report) == {"site-2": Refusal.REVOKED if is_revoked else Refusal.NO_REPLY}
    assert len(report.admitted) == 2


def test_a_hold_that_was_released_lets_the_site_in_again() -> None:
    with LocalFederation(honest(), 2) as federation:
        federation.hold("site-1")
        _, (report,) = train(federation)
        assert report.admitted == ("site-0",)
        federation.release("site-1")
        _, (report,) = train(federation)
        assert set(report.admitted) == {"site-0", "site-1"}


# --- quorum


def policy(**quorum: object) -> TrustPolicy:
    return TrustPolicy(waits=QUICK, quorum=QuorumPolicy(**quorum))  # type: ignore[arg-type]


def test_too_few_updates_fail_the_run_where_policy_says_so_and_the_round_is_on_record() -> None:
    with LocalFederation(honest(), 3) as federation:
        federation["site-1"].mischief = mischief.strip
        with pytest.raises(QuorumNotMet, match="site-1: unsigned"):
            train(federation, policy=policy(min_updates=3, on_failure=OnFailure.FAIL))
        (record,) = federation.rounds()
    assert record.status is RoundStatus.SEALED


def test_too_few_updates_keep_the_model_where_policy_says_so() -> None:
    with LocalFederation(honest(), 3) as federation:
        federation["site-1"].mischief = mischief.strip
        result, reports = train(
            federation, rounds=2, policy=policy(min_fraction=0.9, on_failure=OnFailure.KEEP_MODEL)
        )
    assert dict(result.arrays) == {}  # Flower's word for "as it was"
    assert len(reports) == 2


def test_enough_updates_are_enough() -> None:
    with LocalFederation(honest(), 3) as federation:
        federation["site-1"].mischief = mischief.strip
        result, _ = train(federation, policy=policy(min_updates=2, on_failure=OnFailure.FAIL))
    assert weights(result.arrays) == [1.0] * 4


def test_a_strategy_that_wants_more_nodes_than_stand_well_is_told_so_in_time() -> None:
    with LocalFederation(honest(), 2) as federation:
        train(federation, min_train_nodes=2, min_available_nodes=2)
        federation.revoke("site-1")
        with pytest.raises(QuorumNotMet, match="min_train_nodes"):
            train(federation, min_train_nodes=2, min_available_nodes=2)


# --- waiting


def test_a_reply_that_is_announced_and_never_uploaded_is_given_up() -> None:
    with LocalFederation(honest(), 3) as federation:
        federation.grid.stalling.add(NodeId(federation["site-1"].node_id))
        result, (report,) = train(federation)
    assert weights(result.arrays) == [1.0] * 4
    assert refusals(report) == {"site-1": Refusal.STALLED}


def test_a_site_that_never_answers_is_given_up_at_the_timeout() -> None:
    with LocalFederation(honest(), 3) as federation:
        federation["site-1"].mischief = mischief.hang
        waits = replace(QUICK, timeout=timedelta(seconds=1))
        _, (report,) = train(federation, policy=TrustPolicy(waits=waits))
    assert refusals(report) == {"site-1": Refusal.NO_REPLY}


def test_the_callers_timeout_counts_as_well() -> None:
    with LocalFederation(honest(), 1) as federation, trusted(federation) as grid:
        federation["site-0"].mischief = mischief.hang
        (reply,) = grid.send_and_receive([instruction(federation["site-0"].node_id)], timeout=0.2)
    assert Refusal.NO_REPLY in str(reply.error.reason)


def test_many_sites_are_waited_for_by_a_few_pullers() -> None:
    waits = replace(QUICK, pullers=2)
    with LocalFederation(honest(), 12) as federation:
        _, (report,) = train(federation, policy=TrustPolicy(waits=waits))
    assert len(report.admitted) == 12


def test_a_pull_that_fails_over_what_it_fetched_costs_that_reply_alone() -> None:
    with LocalFederation(honest(), 2) as federation, trusted(federation) as grid:
        bad, pull = NodeId(federation["site-1"].node_id), federation.grid.pull_messages

        def broken(ids: list[str]) -> list[Message]:
            replies = list(pull(ids))
            if any(reply.metadata.src_node_id == bad for reply in replies):
                raise ValueError("Unexpected set of `children`")
            return replies

        federation.grid.pull_messages = broken  # type: ignore[method-assign,assignment]
        one, two = grid.send_and_receive([instruction(p.node_id) for p in federation.participants])
    assert one.has_content()
    assert "children" in str(two.error.reason)


def test_a_relay_that_stumbles_is_asked_again() -> None:
    with LocalFederation(honest(), 1) as federation, trusted(federation) as grid:
        pull, failures = federation.grid.pull_messages, iter([True, True])

        def flaky(ids: list[str]) -> object:
            if next(failures, False):
                raise ConnectionError("reset")
            return pull(ids)

        federation.grid.pull_messages = flaky  # type: ignore[method-assign,assignment]
        (reply,) = grid.send_and_receive([instruction(federation["site-0"].node_id)])
    assert reply.has_content()


def test_a_run_that_was_stopped_ends_the_wait() -> None:
    with LocalFederation(honest(), 1) as federation, trusted(federation) as grid:

        def stopped(_ids: object) -> object:
            raise _private.RunNotRunningException

        federation.grid.pull_messages = stopped  # type: ignore[method-assign,assignment]
        with pytest.raises(_private.RunNotRunningException):
            grid.send_and_receive([instruction(federation["site-0"].node_id)])


# --- when the coordinator is out of reach


def _outage_at_the_seal(federation: LocalFederation) -> None:
    def cut(_message: Message) -> None:
        federation.coordinator.is_reachable = False

    federation["site-0"].before = cut


def test_a_seal_that_finds_no_coordinator_fails_hard_by_default() -> None:
    with LocalFederation(honest(), 2) as federation:
        _outage_at_the_seal(federation)
        with pytest.raises(CoordinatorUnavailable):
            train(federation)


@pytest.mark.parametrize("mode", [ReachMode.SOFT_FAIL, ReachMode.BEST_EFFORT])
def test_other_policies_go_on_without_a_seal_and_say_so(
    mode: ReachMode, caplog: pytest.LogCaptureFixture
) -> None:
    with LocalFederation(honest(), 2) as federation:
        _outage_at_the_seal(federation)
        result, (report,) = train(federation, policy=TrustPolicy(waits=QUICK, reach=ReachPolicy(mode=mode)))
    assert weights(result.arrays) == [1.0] * 4
    assert report.receipt is None
    assert "not sealed" in caplog.text


def test_a_short_outage_costs_no_round() -> None:
    with LocalFederation(honest(), 2) as federation:
        _outage_at_the_seal(federation)
        back = threading.Timer(0.5, lambda: setattr(federation.coordinator, "is_reachable", True))
        back.start()
        _, (report,) = train(
            federation, policy=TrustPolicy(waits=replace(QUICK, patience=timedelta(seconds=20)))
        )
    assert set(report.admitted) == {"site-0", "site-1"}
    assert report.receipt is not None


def test_a_round_whose_opening_was_lost_takes_the_next_step() -> None:
    with LocalFederation(honest(), 1) as federation:
        agent = federation.grid.aggregator_agent
        opened, lost = agent.open_round, iter([True])

        def answer_lost(key: object, cohort: object) -> object:
            answer = opened(key, cohort)  # type: ignore[arg-type]
            if next(lost, False):
                raise CoordinatorUnavailable("the answer was lost")
            return answer

        agent.open_round = answer_lost  # type: ignore[method-assign,assignment]
        _, (report,) = train(federation)
        assert report.key.step == 2
        assert report.admitted == ("site-0",)


def test_no_work_begins_on_a_stale_view() -> None:
    clock = FakeClock()
    with LocalFederation(honest(), 1, clock=clock) as federation, trusted(federation) as grid:
        federation.coordinator.is_reachable = False
        clock.advance(timedelta(seconds=31))
        with pytest.raises(StaleView):
            grid.send_and_receive([instruction(federation["site-0"].node_id)])
        assert federation["site-0"].received == []
