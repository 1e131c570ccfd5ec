"""The participant's side: what it takes before training, and before its key signs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime

from fltrust.agent.counters import RefusalCounter
from fltrust.agent.credentials import Credentials, CredentialStore
from fltrust.agent.journal import Journal, Question
from fltrust.agent.ports import AgentIdentity, ReceivedInstruction
from fltrust.clock import Clock
from fltrust.enrollment.second import SecondPair, no_second_key
from fltrust.errors import FltrustError, Refusal, Revoked, StatementRefused
from fltrust.eventlog import EventLog
from fltrust.identity import Digest, KeyId, RunId, SpiffeId
from fltrust.pki.second import require_in_force
from fltrust.pki.types import TrustBundle
from fltrust.revocation.state import TrustState
from fltrust.revocation.view import TrustView
from fltrust.updates.second import SecondSignature
from fltrust.updates.signing import SignedStatement, sign_statement
from fltrust.updates.statement import InstructionStatement, Statement, UpdateStatement
from fltrust.updates.verify import (
    ExpectedInstruction,
    VerifiedInstruction,
    Verifier,
    unverified_statement,
)

_log = logging.getLogger("fltrust.agent")


class ParticipantCore:
    """Implements `ParticipantAgent`. Both requests go through one recipe:

    1. This identity is not known to be revoked, the trust view is as fresh as the policy asks, and
       it shows this participant's own certificate in good standing.
    2. The instruction is signed by an aggregator of the domain (the host's, where there is one) in good
       standing, unaltered.
    3. It is for this participant, node key, run, node and message type.
    4. It is in force: issued, and not expired.
    5. Content and model are those that it names.
    6. The run is open (the feed gets `patience` seconds to say so: the instruction may be faster), and the
       aggregator that signed is the one that opened it.
    7. It is not older than what was answered before.

    And to sign:

    8. The reply is of the instruction's message type.
    9. It is the only reply to this instruction; it is remembered before it leaves.

    To sign once more, with the second key (ML-DSA-65):

    10. As 1. What is shown is an answer that step 9 remembers, byte for byte (``unknown-answer``).
    11. There is a second key of this very participant's (``second-key-missing``), whose certificate is in
        force, and was when the answer was signed.

    Refusals are counted by reason.
    """

    def __init__(
        self,
        credentials: CredentialStore,
        *,
        node_key: KeyId,
        view: TrustView,
        journal: Journal,
        clock: Clock,
        patience: float = 2.0,
        events: EventLog | None = None,
        host: Callable[[], TrustBundle] | None = None,
        home: TrustView | None = None,
        second: Callable[[], SecondPair] | None = None,
    ) -> None:
        """In another domain's rounds `host` gives that domain's roots and `view` is its feed; `home` is then
        our own domain's, which is asked about ourselves. `second` gives the second key of the moment."""
        self._credentials = credentials
        self._node_key = node_key
        self._view = view
        self._journal = journal
        self._clock = clock
        self._patience = patience
        self._events = events
        self._host = host
        self._home = home
        self._second = second or self._no_second
        self._halted: Revoked | None = None
        self._refusals = RefusalCounter()

    def identity(self) -> AgentIdentity:
        current = self._credentials.current
        return AgentIdentity(current.spiffe_id, current.bundle, self._node_key)

    def halt(self, because: Revoked) -> None:
        """Refuse everything from now on: this identity was told that it is revoked."""
        self._halted = because

    @property
    def refusals(self) -> Mapping[str, int]:
        return self._refusals.snapshot()

    def check_instruction(self, received: ReceivedInstruction) -> None:
        with self._recording(received):
            _, instruction = self._verify(received)
        self._say("instruction-accepted", instruction)

    def sign_update(self, received: ReceivedInstruction, *, reply: Digest, reply_type: str) -> bytes:
        with self._recording(received):
            current, instruction = self._verify(received)
            if reply_type != instruction.statement.message_type:  # 8
                raise StatementRefused(
                    f"expected a reply of type {instruction.statement.message_type!r}, "
                    f"got {reply_type[:80]!r}",
                    reason=Refusal.WRONG_PHASE,
                )
            now = self._clock.now()
            update = _answer(instruction, reply, current, now)
            signed = self._journal.remember(  # 9
                _question(instruction),
                reply=reply,
                at=now,
                sign=lambda: sign_statement(
                    update, signer=current.signer, chain=current.chain_der
                ).to_bytes(),
            )
        self._say("update-signed", instruction)
        return signed

    def sign_second(self, signed: bytes) -> bytes:
        statement: Statement | None = None
        try:
            with self._refusals.counting():
                self._in_good_standing()  # 10
                answer = SignedStatement.from_bytes(signed)
                statement = unverified_statement(answer)
                if not isinstance(statement, UpdateStatement) or not self._journal.has_given(
                    statement.instruction, signed
                ):
                    raise StatementRefused(
                        "expected an answer that this agent signed before, got another statement",
                        reason="unknown-answer",
                    )
                pair = self._second()  # 11
                if pair.leaf.spiffe_id != statement.participant:
                    raise no_second_key(statement.participant)
                for at in (statement.signed_at, self._clock.now()):
                    require_in_force(pair.leaf, at=at)
                payload = answer.envelope.payload
                second = SecondSignature.sign(payload, signer=pair.signer, chain=pair.chain_der)
        except FltrustError as error:
            _log.warning("not signed a second time (%s): %s", error.reason, error)
            self._emit("second-refused", reason=error.reason)
            raise
        self._emit("update-signed-twice", run_id=str(int(statement.run_id)), round=statement.round)
        return second.to_json()

    def _no_second(self) -> SecondPair:
        raise no_second_key(self._credentials.spiffe_id)

    def _emit(self, event: str, **fields: str | int) -> None:
        if self._events is not None:
            self._events.emit(event, participant=str(self._credentials.spiffe_id), **fields)

    def _in_good_standing(self) -> Credentials:
        if self._halted is not None:
            raise Revoked(self._halted.message, reason=self._halted.reason, hint=self._halted.hint)
        current = self._credentials.current
        if not self._view.require_fresh():
            _log.warning("going on with a trust view that is %s old, as the policy allows", self._view.age())
        self._view.judge(current.certificate)
        self._judge_at_home(current)
        return current

    def _verify(self, received: ReceivedInstruction) -> tuple[Credentials, VerifiedInstruction]:
        current = self._in_good_standing()  # 1
        bundle = current.bundle if self._host is None else self._host()
        verified = Verifier(bundle).verify_instruction(  # 2 to 5
            SignedStatement.from_bytes(received.signed),
            at=self._clock.now(),
            judge=self._view.judge,
            expected=ExpectedInstruction(
                run_id=received.run_id,
                node_id=received.node_id,
                participant=current.spiffe_id,
                message_type=received.message_type,
                node_key=self._node_key,
            ),
            content_digest=received.content,
            model_digest=received.model,
        )
        self._require_open(received.run_id, by=verified.statement.aggregator)  # 6
        self._journal.check(_question(verified))  # 7
        return current, verified

    def _judge_at_home(self, current: Credentials) -> None:
        """A no of our own domain counts at once. That it cannot be heard is the host's to judge."""
        if self._home is not None and self._home.heard is not None:
            self._home.judge(current.certificate)

    def _require_open(self, run_id: RunId, *, by: SpiffeId) -> None:
        owner: SpiffeId | None = None

        def is_open(state: TrustState) -> bool:
            nonlocal owner
            owner = state.run_owner(run_id)
            return run_id in state.open_runs

        if not self._view.wait_until(is_open, self._patience):
            raise StatementRefused(
                f"expected an open run, run {int(run_id)} is not open as of epoch {self._view.epoch}",
                reason=Refusal.RUN_NOT_OPEN,
                hint="was the run closed, or is the ServerApp's grid a TrustedGrid?",
            )
        if owner != by:
            raise StatementRefused(
                f"expected an instruction of {owner or 'the aggregator'} that opened run {int(run_id)}, "
                f"got one of {by}",
                reason=Refusal.WRONG_RUN,
            )

    def _say(self, event: str, instruction: VerifiedInstruction) -> None:
        if self._events is not None:
            statement = instruction.statement
            self._events.emit(
                event,
                participant=str(statement.participant),
                run_id=str(int(statement.run_id)),
                round=statement.round,
                phase=str(statement.phase),
                instruction=str(instruction.payload_digest),
            )

    @contextmanager
    def _recording(self, received: ReceivedInstruction) -> Iterator[None]:
        """Count and log a refusal on its way out; what it says of the run is the app's claim."""
        try:
            with self._refusals.counting():
                yield
        except FltrustError as error:
            if self._events is not None:
                self._events.emit(
                    "instruction-refused",
                    participant=str(self._credentials.spiffe_id),
                    run_id=str(int(received.run_id)),
                    reason=error.reason,
                )
            raise


def _answer(
    instruction: VerifiedInstruction, reply: Digest, current: Credentials, now: datetime
) -> UpdateStatement:
    """What the signature binds: the instruction in full, the reply, and the certificate."""
    statement = instruction.statement
    return UpdateStatement(
        domain=statement.domain,
        run_id=statement.run_id,
        round=statement.round,
        phase=statement.phase,
        step=statement.step,
        instruction_id=statement.instruction_id,
        participant=statement.participant,
        node_id=statement.node_id,
        node_key=statement.node_key,
        message_type=statement.message_type,
        content=reply,
        model=statement.model,
        certificate=current.certificate.fingerprint,
        instruction=instruction.payload_digest,
        signed_at=now,
    )


def _question(instruction: VerifiedInstruction) -> Question:
    statement: InstructionStatement = instruction.statement
    return Question(
        digest=instruction.payload_digest,
        instruction_id=statement.instruction_id,
        run_id=statement.run_id,
        phase=statement.phase,
        round=statement.round,
    )
