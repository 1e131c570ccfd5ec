"""One exchange: instructions out, replies in, judged as they arrive, sealed by the coordinator.

    prepare → open → push → collect → seal

The strategy sees only what the receipt admits. Everybody else who was asked is told of to it the way
Flower does, as an error reply.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from queue import Empty, SimpleQueue
from typing import TypeVar

from flwr.app import Error, Message
from flwr.serverapp import Grid

from fltrust.agent.ports import AggregatorAgent, InstructionDraft
from fltrust.clock import Clock
from fltrust.errors import CertificateRefused, QuorumNotMet, Refusal, Revoked, Unavailable
from fltrust.eventlog import EventLog
from fltrust.flower import _private
from fltrust.flower.nodes import NodeDirectory, TrustedNode
from fltrust.flower.policy import OnFailure, TrustPolicy
from fltrust.flower.pullers import Pullers, PullFailed
from fltrust.flower.records import attach, to_content
from fltrust.flower.verdicts import Answer, Asked, Judge, Refused, structure_of
from fltrust.identity import NodeId, SpiffeId
from fltrust.revocation.events import EventKind, TrustEvent
from fltrust.revocation.view import ReachMode, TrustView
from fltrust.rounds.types import RoundKey
from fltrust.updates import (
    MAX_SEALED_SIGNED_BYTES,
    DigestMemo,
    Phase,
    SealedRoundStatement,
    SignedStatement,
    Verifier,
    digest_content,
)

_log = logging.getLogger("fltrust.flower")

_TICK = 0.2  # how often a wait looks at its own bounds
_LONGEST_LIFE = timedelta(days=1)
_T = TypeVar("_T")


@dataclass(slots=True)
class Services:
    """What every exchange of a run needs."""

    grid: Grid
    agent: AggregatorAgent
    view: TrustView
    nodes: NodeDirectory
    judge: Judge
    verifier: Verifier
    policy: TrustPolicy
    clock: Clock
    events: EventLog


@dataclass(slots=True)
class Exchange:
    """One exchange of a run. Use it once: `send`, then `collect`, then `seal`."""

    key: RoundKey
    services: Services
    asked: dict[str, Asked] = field(default_factory=dict)
    """By the message id that Flower gave: our own table, by which replies are judged."""
    answers: dict[SpiffeId, Answer] = field(default_factory=dict)
    refused: list[Refused] = field(default_factory=list)
    unsent: list[Message] = field(default_factory=list)
    """Error replies for messages that never went out."""
    _is_open: bool = False

    # --- out

    def send(self, messages: Iterable[Message], *, lifetime: timedelta) -> None:
        """Sign an instruction for each message, open the round for those who stand well, and push.

        1. The node of each message is a participant's in good standing, and no participant is asked twice.
        2. The agent signs, over a content that was digested once, however many get it.
        3. The coordinator opens the round; whom it refuses is not sent anything.
        4. What is left is pushed, each with its own instruction attached.
        """
        targets = [(m, node) for m in messages if (node := self._target(m)) is not None]  # 1
        asked = self._sign(targets, lifetime)  # 2
        asked = self._open(asked)  # 3
        self._push(asked)  # 4

    def _target(self, message: Message) -> TrustedNode | None:
        node_id = NodeId(message.metadata.dst_node_id)
        try:
            return self.services.nodes.find(node_id)
        except (CertificateRefused, Revoked) as error:
            self._leave_out(message, error.reason, str(error))
            return None

    def _sign(self, targets: list[tuple[Message, TrustedNode]], lifetime: timedelta) -> list[Asked]:
        memo, seen = DigestMemo(), set[SpiffeId]()
        prepared, drafts = [], []
        for message, node in targets:
            if node.participant in seen:
                self._leave_out(message, Refusal.DUPLICATE, f"{node.participant} was asked already")
                continue
            seen.add(node.participant)
            content = to_content(message.content)
            digests = digest_content(content, memo=memo)
            prepared.append((message, node, structure_of(content)))
            drafts.append(
                InstructionDraft(
                    run_id=self.key.run_id,
                    round=self.key.round,
                    phase=self.key.phase,
                    step=self.key.step,
                    participant=node.participant,
                    node_id=node.node_id,
                    node_key=node.node_key,
                    message_type=message.metadata.message_type,
                    content=digests.content,
                    model=digests.model,
                    lifetime=min(lifetime, _LONGEST_LIFE),
                )
            )
        if not drafts:
            return []
        signed = self._patiently(lambda: self.services.agent.sign_instructions(tuple(drafts)), "sign")
        asked = []
        for (message, node, like), statement in zip(prepared, signed, strict=True):
            carrying = _private.copy_message(message, attach(message.content, statement))
            asked.append(Asked.of(node, carrying, statement, like))
        return asked

    def _open(self, asked: list[Asked]) -> list[Asked]:
        cohort = tuple(a.member() for a in asked)
        try:
            opened = self._patiently(lambda: self.services.agent.open_round(self.key, cohort), "open")
        except Unavailable as error:
            self._go_on_without_coordinator("opened", error)
            return asked
        self._is_open = True
        for who in asked:
            self._emit("instruction-signed", participant=str(who.node.participant))
        out = dict(opened.refused)
        for who in asked:
            if who.node.participant in out:
                self.refuse(who, out[who.node.participant], "the coordinator does not let it take part")
        return [a for a in asked if a.node.participant not in out]

    def _push(self, asked: list[Asked]) -> None:
        if not asked:
            return
        ids = list(self.services.grid.push_messages([a.message for a in asked]))
        for index, who in enumerate(asked):
            message_id = ids[index] if index < len(ids) else None
            if message_id:
                self.asked[message_id] = who
            else:
                self.refuse(who, Refusal.NO_REPLY, "the SuperLink did not take its message")

    # --- in

    def collect(self, *, timeout: timedelta | None) -> None:
        """Pull every reply on its own until each is decided, nobody is worth waiting for, or time is up.

        A participant that is revoked or held is dropped when the view hears of it: not waited for, and
        not kept if its reply was verified already. One whose pull does not come back within the stall
        bound is given up. Raises what ends the run (Flower says that it was stopped).
        """
        services, waits = self.services, self.services.policy.waits
        inbox: SimpleQueue[tuple[str, Answer | Refused | BaseException] | TrustEvent] = SimpleQueue()
        pending = dict(self.asked)

        def deliver(message_id: str, outcome: Message | PullFailed) -> None:
            try:
                inbox.put((message_id, services.judge.judge(self.asked[message_id], outcome)))
            except BaseException as error:
                inbox.put((message_id, error))

        pullers = Pullers(
            services.grid.pull_messages,
            deliver,
            clock=services.clock,
            poll=waits.poll,
            patience=waits.patience,
            limit=waits.pullers,
        )
        unsubscribe = services.view.subscribe(inbox.put)
        deadline = None if timeout is None else services.clock.monotonic() + timeout.total_seconds()
        try:
            pullers.add(pending)
            self._drop_fallen(pending, pullers)  # between opening and subscribing
            while pending:
                self._take(inbox, pending, pullers)
                for message_id in pullers.stalled(waits.stall):
                    self._give_up(message_id, pending, pullers, Refusal.STALLED, "its upload does not come")
                if deadline is not None and services.clock.monotonic() >= deadline:
                    for message_id in tuple(pending):
                        self._give_up(
                            message_id, pending, pullers, Refusal.NO_REPLY, "it did not reply in time"
                        )
        finally:
            unsubscribe()
            pullers.close()

    def _take(
        self,
        inbox: SimpleQueue[tuple[str, Answer | Refused | BaseException] | TrustEvent],
        pending: dict[str, Asked],
        pullers: Pullers,
    ) -> None:
        try:
            item = inbox.get(timeout=_TICK)
        except Empty:
            return
        if isinstance(item, TrustEvent):
            if item.kind in (EventKind.REVOKED, EventKind.HELD):
                self._drop_fallen(pending, pullers)
            return
        message_id, verdict = item
        if isinstance(verdict, BaseException):
            raise verdict
        if pending.pop(message_id, None) is None:
            return  # given up, or dropped, before its verdict came
        if isinstance(verdict, Answer):
            self.admit(verdict)
        else:
            self.refuse(verdict.asked, verdict.reason, verdict.text)

    def admit(self, answer: Answer) -> None:
        self.answers[answer.asked.node.participant] = answer
        self._emit("update-verified", participant=str(answer.asked.node.participant))

    def _drop_fallen(self, pending: dict[str, Asked], pullers: Pullers) -> None:
        """Drop who no longer stands well: from those we wait for, and from those who answered."""
        for message_id, who in tuple(pending.items()):
            reason = self._fallen(who)
            if reason is not None:
                self._give_up(message_id, pending, pullers, reason, "it was revoked or held meanwhile")
        for participant, answer in tuple(self.answers.items()):
            reason = self._fallen(answer.asked) or self._barred(answer)
            if reason is not None:
                del self.answers[participant]
                self.refuse(answer.asked, reason, "it was revoked or held after it answered")

    def _fallen(self, who: Asked) -> str | None:
        try:
            self.services.nodes.find(who.node.node_id)
        except (CertificateRefused, Revoked) as error:
            return error.reason
        return None

    def _barred(self, answer: Answer) -> str | None:
        try:
            self.services.view.judge(answer.update.certificate)
        except (CertificateRefused, Revoked) as error:
            return error.reason
        return None

    def _give_up(
        self, message_id: str, pending: dict[str, Asked], pullers: Pullers, reason: str, text: str
    ) -> None:
        pullers.abandon(message_id)
        who = pending.pop(message_id, None)
        if who is not None:
            self.refuse(who, reason, text)

    # --- sealed

    def seal(self) -> list[Message]:
        """Have the coordinator decide, and return what it admitted, and an error reply for everybody else.

        The receipt is verified; an update counts only if it names exactly the one we verified.
        Raises `QuorumNotMet` in training, where policy says so.
        """
        if self._is_open:
            try:
                self._keep_admitted(self._receipt())
            except Unavailable as error:
                self._go_on_without_coordinator("sealed", error)
        self._check_quorum()
        replies = [answer.reply for answer in self.answers.values()]
        return [*replies, *(_error_reply(r) for r in self.refused), *self.unsent]

    def _receipt(self) -> SealedRoundStatement:
        candidates = tuple(answer.candidate for answer in self.answers.values())
        refused = tuple((r.asked.node.participant, r.reason) for r in self.refused)
        receipt = self._patiently(
            lambda: self.services.agent.seal_round(self.key, candidates, refused), "seal"
        )
        verified = self.services.verifier.verify_receipt(
            SignedStatement.from_bytes(receipt, limit=MAX_SEALED_SIGNED_BYTES),
            at=self.services.clock.now(),
            judge=self.services.view.judge,
        )
        said = verified.statement
        if RoundKey(said.run_id, said.step, said.round, said.phase) != self.key:
            raise CertificateRefused(
                "expected the receipt of this round, got that of another", reason=Refusal.WRONG_ROUND
            )
        return said

    def _keep_admitted(self, receipt: SealedRoundStatement) -> None:
        admitted = {entry.participant: entry.update for entry in receipt.admitted}
        reasons = dict(receipt.refused)
        for participant, answer in tuple(self.answers.items()):
            if admitted.get(participant) != answer.update.payload_digest:
                del self.answers[participant]
                reason = reasons.get(participant, Refusal.LATE)
                self.refuse(answer.asked, reason, f"refused at the seal, at epoch {receipt.epoch}")
        self._emit(
            "round-sealed",
            epoch=int(receipt.epoch),
            index=receipt.index,
            admitted=len(receipt.admitted),
            refused=len(receipt.refused),
        )

    def _check_quorum(self) -> None:
        if self.key.phase is not Phase.TRAIN:
            return
        quorum = self.services.policy.quorum
        asked = len(self.asked) + len(self.unsent)
        needed = quorum.needed(asked)
        if len(self.answers) >= needed:
            return
        reasons = ", ".join(sorted({f"{r.asked.node.participant.name}: {r.reason}" for r in self.refused}))
        text = (
            f"round {self.key.round}: expected at least {needed} updates of {asked}, "
            f"{len(self.answers)} were admitted ({reasons or 'nobody could be asked'})"
        )
        if quorum.on_failure is OnFailure.FAIL:
            raise QuorumNotMet(text, hint="lower the quorum, or find out what happened at the sites")
        _log.warning("%s; the model stays as it was", text)
        self.answers.clear()

    # --- shared

    def _leave_out(self, message: Message, reason: str, text: str) -> None:
        _log.warning("node %d gets no instruction: %s", message.metadata.dst_node_id, text)
        error = Error(code=_private.ErrorCode.NODE_UNAVAILABLE, reason=f"fltrust: {reason}: {text}")
        self.unsent.append(Message(error, reply_to=message))

    def refuse(self, who: Asked, reason: str, text: str) -> None:
        self.refused.append(Refused(who, str(reason), text))
        _log.warning("%s, round %d: refused (%s): %s", who.node.participant, self.key.round, reason, text)
        self._emit("update-refused", participant=str(who.node.participant), reason=str(reason), detail=text)

    def _emit(self, event: str, **fields: str | int) -> None:
        self.services.events.emit(
            event,
            run_id=str(int(self.key.run_id)),
            round=self.key.round,
            phase=str(self.key.phase),
            step=self.key.step,
            **fields,
        )

    def _go_on_without_coordinator(self, what: str, error: Unavailable) -> None:
        """Where policy allows it, say so and go on; otherwise raise."""
        services = self.services
        if services.policy.reach.mode is ReachMode.HARD_FAIL:
            raise error
        services.policy.reach.check(services.view.age())
        _log.warning("round %d is not %s: %s; going on, as policy says", self.key.round, what, error)
        self._emit(f"round-not-{what}", reason=error.reason)

    def _patiently(self, call: Callable[[], _T], what: str) -> _T:
        """Repeat a call that found nobody, for as long as policy is patient."""
        services = self.services
        end = services.clock.monotonic() + services.policy.waits.patience.total_seconds()
        pause = 0.1
        while True:
            try:
                return call()
            except Unavailable as error:
                if services.clock.monotonic() >= end:
                    raise
                _log.warning("cannot %s round %d yet: %s", what, self.key.round, error)
            time.sleep(pause)
            pause = min(pause * 2, 1.0)


def _error_reply(refused: Refused) -> Message:
    error = Error(
        code=_private.ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
        reason=f"fltrust: {refused.asked.node.participant}: {refused.reason}: {refused.text}",
    )
    return Message(error, reply_to=refused.asked.message)
