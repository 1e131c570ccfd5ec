"""What is asked of whom, and what becomes of the answer. Judged by our own table, never by its claims."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cryptography import x509
from flwr.app import Message

from fltrust.clock import Clock
from fltrust.errors import FltrustError, InvalidInput, Refusal, StatementRefused, UpdateRefused
from fltrust.flower._private import ErrorCode, RunNotRunningException
from fltrust.flower.nodes import TrustedNode
from fltrust.flower.policy import TrustPolicy
from fltrust.flower.pullers import PullFailed
from fltrust.flower.records import detach, to_content
from fltrust.identity import Digest, TrustDomain
from fltrust.revocation.view import TrustView
from fltrust.rounds.types import Candidate, CohortMember
from fltrust.updates import (
    Content,
    ExpectedUpdate,
    InstructionStatement,
    Phase,
    SignedStatement,
    StructurePolicy,
    StructureSpec,
    VerifiedUpdate,
    Verifier,
    check_structure,
    unverified_statement,
)
from fltrust.updates.second import demand_second

_log = logging.getLogger("fltrust.flower")

_MAX_WORDS = 300

_GONE = frozenset(
    (ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE, ErrorCode.NODE_UNAVAILABLE)
)
"""What Flower says of a message whose node the SuperLink does not have any more."""

_COMPARED = frozenset((StructurePolicy.EXACT, StructurePolicy.TENSORS, StructurePolicy.SHAPES))


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
    content: Content
    reply: Message
    candidate: Candidate


@dataclass(frozen=True, slots=True)
class Refused:
    """No answer that counts: the reason's word, and a sentence for people."""

    asked: Asked
    reason: str
    text: str
    is_gone: bool = False
    """The SuperLink has lost the node or its message, which may be a revocation that we have not heard of."""


Verdict = Answer | Refused


@dataclass(slots=True)
class Judge:
    """Turns what a pull brought into an `Answer` or a `Refused`. Safe to call from many threads."""

    verifier: Callable[[], Verifier]
    view: TrustView
    policy: TrustPolicy
    structure: StructurePolicy
    clock: Clock
    second_roots: Mapping[TrustDomain, x509.Certificate] = field(default_factory=dict)
    workers: int | None = field(default=None)
    first_model: StructureSpec | None = field(default=None)
    """The structure of the first model that was sent to be trained in this run."""

    def judge(self, asked: Asked, outcome: Message | PullFailed) -> Verdict:
        """Verify one reply; never raises for what a participant did.

        1. An error, of the pull or of the reply, is no statement of the participant: ``no-reply``.
        2. The reply carries one signed statement, else ``unsigned``, in words that help.
        3. The statement is this participant's answer to this instruction, and its digest is the
           content's (`Verifier.verify_update`); its certificate stands well in our view. Where policy demands
           it, a second signature by this participant is over the same statement (`demand_second`).
        4. Its tensors are well formed and its numbers finite, unless policy says otherwise. In training it
           fits the model that was sent, or the first one of the run: averaging makes floats of a
           counter's integers, and a client that loads them turns them back.

        What the reply says about itself (sender, message id, time) is not looked at.
        """
        try:
            if isinstance(outcome, PullFailed):  # 1
                if isinstance(outcome.error, RunNotRunningException):
                    raise outcome.error
                return Refused(
                    asked, Refusal.NO_REPLY, f"its reply could not be fetched: {_quoted(outcome.error)}"
                )
            if outcome.has_error():
                said = f"Flower says: {_quoted(outcome.error.reason)}"
                return Refused(asked, Refusal.NO_REPLY, said, is_gone=outcome.error.code in _GONE)
            return self._verify(asked, outcome)
        except FltrustError as error:
            return Refused(asked, error.reason, str(error))
        except Exception as error:
            # Flower's records check themselves as they are read, with Python's own errors. Whatever a
            # reply trips over, it must not end the run; a bug of ours shows in the log.
            _log.warning("a reply of %s cannot be read", asked.node.participant, exc_info=True)
            return Refused(asked, Refusal.MALFORMED, f"its reply cannot be read: {type(error).__name__}")

    def _verify(self, asked: Asked, reply: Message) -> Answer:
        bare, carried = detach(reply.content)  # 2
        if carried is None:
            raise StatementRefused(
                f"expected a signed reply of {asked.node.participant}, got one without a signature",
                reason=Refusal.UNSIGNED,
                hint="is the app wrapped in TrustedClientApp?",
            )
        content = to_content(bare)
        signed, now = SignedStatement.from_bytes(carried.statement), self.clock.now()
        update = self.verifier().verify_update(  # 3
            signed,
            at=now,
            judge=self.view.judge,
            expected=ExpectedUpdate.answering(asked.statement, instruction=asked.instruction),
            content=content,
            workers=self.workers,
        )
        if self.second_roots:
            for at in (update.statement.signed_at, now):  # the first as whoever reads the record will
                demand_second(
                    carried.second,
                    payload=signed.envelope.payload,
                    who=update.certificate.spiffe_id,
                    roots=self.second_roots,
                    at=at,
                )
        self._check_structure(content, asked)  # 4
        trusted = Message(bare, reply_to=asked.message)
        # A second signature that was not demanded is not verified, and goes no further.
        second = carried.second if self.second_roots else None
        candidate = Candidate(asked.signed, carried.statement, second)
        return Answer(asked, update, content, trusted, candidate)

    def _check_structure(self, content: Content, asked: Asked) -> None:
        models: list[StructureSpec] = []
        if asked.statement.phase is Phase.TRAIN and self.structure in _COMPARED:
            models = [model for model in (asked.like, self.first_model) if model is not None]
        if not models:
            policy = StructurePolicy.READABLE if self.structure in _COMPARED else self.structure
            self._check_like(content, None, policy)
            return
        try:
            self._check_like(content, models[0], self.structure)
        except UpdateRefused as error:
            if error.reason != Refusal.STRUCTURE or models[0] == models[-1]:
                raise
            try:
                self._check_like(content, models[-1], self.structure)
            except UpdateRefused:
                raise error from None

    def _check_like(self, content: Content, like: StructureSpec | None, policy: StructurePolicy) -> None:
        check_structure(content, like=like, allow_non_finite=self.policy.allow_non_finite, policy=policy)


def structure_of(content: Content) -> StructureSpec | None:
    """The structure that an answer must have; None where no model went out, or none that can be read."""
    if not content.arrays():
        return None
    try:
        return StructureSpec.of(content)
    except (UpdateRefused, InvalidInput):
        return None


def _quoted(words: object) -> str:
    """Somebody else's words, bounded and on one line: they go into our logs."""
    return repr(str(words)[:_MAX_WORDS])
