"""What an agent must never do, against orders of events that nobody thought of."""

from __future__ import annotations

import contextlib
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from agent_world import MAIN, RUN, SITE, Scene, content, model, scene
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fltrust.agent.handlers import participant_handlers
from fltrust.agent.journal import Journal
from fltrust.agent.ports import ReceivedInstruction
from fltrust.agent.renewal import next_renewal, retry_delay
from fltrust.errors import FltrustError
from fltrust.identity import NodeId, RunId
from fltrust.keys import generate
from fltrust.pki import BACKDATE
from fltrust.revocation import EventKind
from fltrust.updates.dsse import Envelope
from fltrust.updates.signing import SignedStatement
from fltrust.updates.statement import UpdateStatement
from fltrust.wire.pb import agent_pb2 as pb

ROUNDS = st.integers(1, 4)
REPLIES = st.integers(0, 3)


class OneVoice(RuleBasedStateMachine):
    """Instructions, answers, crashes, renewals, holds and closed runs in any order: a participant
    never says two things to one instruction, never goes back, and says nothing while it may not."""

    @initialize()
    def begin(self) -> None:
        self.folder = TemporaryDirectory()
        self.path = Path(self.folder.name) / "j"
        self.here: Scene = scene(Journal(self.path))
        self.instructions: list[ReceivedInstruction] = [self.here.instruction()]
        self.rounds: list[int] = [1]
        self.said: dict[int, bytes] = {}
        self.highest = 0
        self.active = True
        self.open = True

    @rule(rounds=st.lists(ROUNDS, min_size=1, max_size=4))
    def instruct(self, rounds: list[int]) -> None:
        for number in rounds:
            self.instructions.append(self.here.instruction(round=number, step=len(self.instructions) + 1))
            self.rounds.append(number)

    @rule(data=st.data())
    def ask(self, data: st.DataObject) -> None:
        self.answer(data)

    def answer(self, data: st.DataObject) -> None:
        whichever = st.integers(0, len(self.instructions) - 1)
        for which, reply in data.draw(st.lists(st.tuples(whichever, REPLIES), min_size=1, max_size=6)):
            self.answer_one(which, reply)

    def answer_one(self, which: int, reply: int) -> None:
        may = self.active and self.open and (which in self.said or self.rounds[which] >= self.highest)
        try:
            signed = self.here.participant.sign_update(
                self.instructions[which], reply=content(reply), reply_type="train"
            )
        except FltrustError:
            statement = parsed(self.said[which]) if which in self.said else None
            assert not may or (statement is not None and statement.content != content(reply))
            return
        assert may
        assert parsed(signed).content == content(reply)
        assert self.said.setdefault(which, signed) == signed
        self.highest = max(self.highest, self.rounds[which])

    @rule()
    def crash(self) -> None:
        """The process dies without a word; a new one opens the same journal."""
        self.here.participant = self.here.world.participant(self.here.site, Journal(self.path))

    @rule()
    def renew(self) -> None:
        self.here.site.rotate(self.here.world.issue(SITE, generate()))

    @rule(data=st.data())
    def hold_and_release(self, data: st.DataObject) -> None:
        self.here.world.say(EventKind.HELD, subject=SITE, identity_wide=True)
        self.active = False
        self.answer(data)
        self.here.world.say(EventKind.RELEASED, subject=SITE, identity_wide=True)
        self.active = True

    @rule(data=st.data())
    def close_and_open(self, data: st.DataObject) -> None:
        self.here.world.say(EventKind.RUN_CLOSED, run_id=RUN)
        self.open = False
        self.answer(data)
        self.here.world.say(EventKind.RUN_OPENED, run_id=RUN, actor=MAIN)
        self.open = True

    @invariant()
    def each_answer_is_to_its_instruction(self) -> None:
        for which, signed in getattr(self, "said", {}).items():
            asked = SignedStatement.from_bytes(self.instructions[which].signed)
            assert parsed(signed).instruction == Envelope.from_json(asked.envelope_json).payload_digest

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()


def parsed(signed: bytes) -> UpdateStatement:
    return UpdateStatement.from_payload(
        Envelope.from_json(SignedStatement.from_bytes(signed).envelope_json).payload
    )


TestOneVoice = OneVoice.TestCase
TestOneVoice.settings = settings(
    max_examples=40, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)

HERE = scene()
RECEIVED = HERE.instruction()


@settings(max_examples=150, deadline=None)
@given(
    bit=st.integers(0, len(RECEIVED.signed) * 8 - 1),
)
def test_no_flipped_bit_of_an_instruction_is_taken(bit: int) -> None:
    data = bytearray(RECEIVED.signed)
    data[bit // 8] ^= 1 << (bit % 8)
    try:
        HERE.participant.check_instruction(replace(RECEIVED, signed=bytes(data)))
    except FltrustError:
        return
    raise AssertionError(f"bit {bit} was flipped and the instruction was taken")


@settings(max_examples=100, deadline=None)
@given(
    run=st.sampled_from([RUN, RunId(1)]),
    node=st.sampled_from([RECEIVED.node_id, NodeId(1)]),
    kind=st.sampled_from(["train", "evaluate", "query.x", "", "train\x00", "x" * 200]),
    seed=st.sampled_from([1, 2]),
    other=st.sampled_from([1, 2]),
)
def test_only_the_very_instruction_is_taken(
    run: RunId, node: NodeId, kind: str, seed: int, other: int
) -> None:
    received = replace(
        RECEIVED, run_id=run, node_id=node, message_type=kind, content=content(seed), model=model(other)
    )
    try:
        HERE.participant.check_instruction(received)
    except FltrustError:
        assert received != RECEIVED
    else:
        assert received == RECEIVED


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=300))
def test_no_bytes_break_the_socket_s_handlers(data: bytes) -> None:
    """Invariant 4: whatever parses as a request gets an answer or a refusal of ours."""
    request = pb.AgentRequest()
    try:
        request.ParseFromString(data)
    except Exception:
        return
    handler = participant_handlers(HERE.participant).get(request.WhichOneof("request") or "")
    if handler is not None:
        with contextlib.suppress(FltrustError):
            handler(request)


@given(
    life=st.timedeltas(timedelta(seconds=5), timedelta(days=30)),
    seed=st.integers(),
)
def test_renewal_falls_between_six_tenths_and_three_quarters_of_the_life(life: timedelta, seed: int) -> None:
    issued = datetime(2026, 3, 1, tzinfo=UTC)
    at = next_renewal(issued - BACKDATE, issued + life, rng=random.Random(seed))
    assert issued + life * 0.599 <= at <= issued + life * 0.734


@given(
    attempt=st.integers(1, 10_000),
    left=st.timedeltas(timedelta(seconds=-100), timedelta(days=30)),
    seed=st.integers(),
)
def test_a_retry_comes_soon_enough_for_several_more_and_never_at_once(
    attempt: int, left: timedelta, seed: int
) -> None:
    delay = retry_delay(attempt, left=left, rng=random.Random(seed))
    assert timedelta(milliseconds=100) <= delay <= timedelta(minutes=1)
    if left > timedelta(seconds=1):
        assert delay <= left / 4


def test_the_aggregator_of_the_world_is_enrolled() -> None:
    """The machine above proves nothing if nobody could instruct."""
    assert HERE.world.view.is_active(MAIN)
    HERE.participant.check_instruction(RECEIVED)
