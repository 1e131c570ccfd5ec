"""What is asked of whom, and what becomes of the answer. Judged by our own table, never by its claims."""

from __future__ import annotations

from dataclasses import dataclass, field

from flwr.app import Message

from fltrust.clock import Clock
from fltrust.errors import FltrustError, InvalidInput, Refusal, StatementRefused, UpdateRefused
from fltrust.flower._private import RunNotRunningException
from fltrust.flower.nodes import TrustedNode
from fltrust.flower.policy import TrustPolicy
from fltrust.flower.pullers import PullFailed
from fltrust.flower.records import detach, to_content
from fltrust.identity import Digest
from fltrust.revocation.view import TrustView
from fltrust.rounds.types import Candidate, CohortMember
from fltrust.updates import (
    Content,
    ExpectedUpdate,
    InstructionStatement,
    Phase,
    RecordKind,
    SignedStatement,
    StructurePolicy,
    StructureSpec,
    VerifiedUpdate,
    Verifier,
    check_structure,
    unverified_statement,
)

_WEIGHT = "num-examples"


@dataclass(frozen=True, slots=True)
class Asked:
    """One participant that was sent an instruction; `message` is the one that went out."""

    node: TrustedNode
    message: Message
    signed: bytes
    statement: InstructionStatement
    instruction: Digest
    like: StructureSpec | None
    """The structure of the model that was sent, where one was."""

    @classmethod
    def of(cls, node: TrustedNode, message: Message, signed: bytes, like: StructureSpec | None) -> Asked:
        """Read back what our own agent signed."""
        opened = SignedStatement.from_bytes(signed)
        statement = unverified_statement(opened)
        if not isinstance(statement, InstructionStatement):
            raise StatementRefused("expected the agent to sign an instruction", reason=Refusal.UNKNOWN_TYPE)
        return cls(node, message, signed, statement, opened.envelope.payload_digest, like)

    def member(self) -> CohortMember:
        return CohortMember(self.node.participant, self.node.node_id, self.node.node_key, self.instruction)


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply that was verified: `reply` is rebuilt from what we know, around its content alone."""

    asked: Asked
    update: VerifiedUpdate
    reply: Message
    candidate: Candidate


@dataclass(frozen=True, slots=True)
class Refused:
    """No answer that counts: the reason's word, and a sentence for people."""

    asked: Asked
    reason: str
    text: str


@dataclass(slots=True)
class Judge:
    """Turns what a pull brought into an `Answer` or a `Refused`. Safe to call from many threads."""

    verifier: Verifier
    view: TrustView
    policy: TrustPolicy
    structure: StructurePolicy
    clock: Clock
    workers: int | None = field(default=None)

    def judge(self, asked: Asked, outcome: Message | PullFailed) -> Answer | Refused:
        """Verify one reply; never raises for what a participant did.

        1. An error, of the pull or of the reply, is no statement of the participant: ``no-reply``.
        2. The reply carries one signed statement, else ``unsigned``, in words that help.
        3. The statement is this participant's answer to this instruction, and its digest is the
           content's (`Verifier.verify_update`); its certificate stands well in our view.
        4. In training, the update fits the model that was sent, has finite numbers unless policy
           says otherwise, and claims no more weight than policy allows.

        What the reply says about itself (sender, message id, time) is not looked at.
        """
        try:
            if isinstance(outcome, PullFailed):  # 1
                if isinstance(outcome.error, RunNotRunningException):
                    raise outcome.error
                return Refused(asked, Refusal.NO_REPLY, f"its reply could not be fetched: {outcome.error}")
            if outcome.has_error():
                return Refused(asked, Refusal.NO_REPLY, f"Flower says: {outcome.error.reason}")
            return self._verify(asked, outcome)
        except FltrustError as error:
            return Refused(asked, error.reason, str(error))
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
            # Flower's records check themselves as they are read, with Python's own errors.
            return Refused(asked, Refusal.MALFORMED, f"its reply cannot be read: {type(error).__name__}")

    def _verify(self, asked: Asked, reply: Message) -> Answer:
        bare, signed = detach(reply.content)  # 2
        if signed is None:
            raise StatementRefused(
                f"expected a signed reply of {asked.node.participant}, got one without a signature",
                reason=Refusal.UNSIGNED,
                hint="is the app wrapped in TrustedClientApp?",
            )
        content = to_content(bare)
        update = self.verifier.verify_update(  # 3
            SignedStatement.from_bytes(signed),
            at=self.clock.now(),
            judge=self.view.judge,
            expected=ExpectedUpdate.answering(asked.statement, instruction=asked.instruction),
            content=content,
            workers=self.workers,
        )
        if asked.statement.phase is Phase.TRAIN:  # 4
            self._check_update(content, asked)
        trusted = Message(bare, reply_to=asked.message)
        return Answer(asked, update, trusted, Candidate(asked.signed, signed))

    def _check_update(self, content: Content, asked: Asked) -> None:
        check_structure(
            content,
            like=asked.like,
            allow_non_finite=self.policy.allow_non_finite,
            policy=StructurePolicy.READABLE if asked.like is None else self.structure,
        )
        bound = self.policy.max_weight
        if bound is None:
            return
        for record in content.records:
            for key, value in record.items if record.kind is RecordKind.METRICS else ():
                if key == _WEIGHT and not (isinstance(value, int | float) and 0 <= value <= bound):
                    raise UpdateRefused(
                        f"expected {asked.node.participant} to claim a {_WEIGHT} between 0 and {bound:g}, "
                        f"got {value!r}",
                        reason=Refusal.STRUCTURE,
                    )


def structure_of(content: Content) -> StructureSpec | None:
    """The structure that an answer must have; None where no model went out, or none that can be read."""
    if not content.arrays():
        return None
    try:
        return StructureSpec.of(content)
    except (UpdateRefused, InvalidInput):
        return None
