"""One exchange: instructions out, verdicts in, sealed by the coordinator.

    send (bind → sign → open → push), take each verdict, seal

The strategy sees only what the receipt admits. Everybody else who was asked is told of to it the way
Flower does, as an error reply.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import timedelta

from flwr.app import Error, Message

from fltrust.agent.ports import InstructionDraft
from fltrust.errors import CertificateRefused, Conflict, FltrustError, Refusal, Revoked, Unavailable
from fltrust.flower import _private
from fltrust.flower.consistency import agree, weight_text
from fltrust.flower.nodes import TrustedNode
from fltrust.flower.records import Carried, attach, detach, to_content
from fltrust.flower.retention import Kept
from fltrust.flower.services import ExchangeReport, Services, Trained
from fltrust.flower.verdicts import Answer, Asked, Refused, Verdict, structure_of
from fltrust.identity import NodeId, SpiffeId
from fltrust.rounds.types import RoundKey
from fltrust.updates import (
    MAX_SEALED_SIGNED_BYTES,
    DigestMemo,
    Phase,
    SignedStatement,
    VerifiedReceipt,
    digest_content,
)

_log = logging.getLogger("fltrust.flower")

_Target = tuple[Message, TrustedNode]

_LONGEST_LIFE = timedelta(days=1)
_MAX_REASON = 2_000
_MOST_STEPS = 100  # taken ones to pass over before giving up
_WEIGHT = "num-examples"


@dataclass(slots=True)
class Exchange:
    """One exchange of a run. Use it once: `send`, `take` the verdict on each message asked, `seal`.

    `has_quorum` is False for an exchange of one message out of many, which has no quorum of its own.
    """

    key: RoundKey
    services: Services
    has_quorum: bool = True
    asked: dict[str, Asked] = field(default_factory=dict)
    """By the message id that Flower gave: our own table, by which replies are judged."""
    answers: dict[SpiffeId, Answer] = field(default_factory=dict)
    refused: list[Refused] = field(default_factory=list)
    unsent: list[Message] = field(default_factory=list)
    """Error replies for messages that never went out."""
    _is_open: bool = False
    _given: int = 0

    # --- out

    def send(self, messages: Iterable[Message], *, lifetime: timedelta) -> None:
        """Sign an instruction for each message, open the round for those who stand well, and push.

        1. The node of each message is a participant's in good standing. No two are for one participant.
        2. The agent signs, over a content that was digested once, however many get it.
        3. The coordinator opens the round; whom it refuses is not sent anything.
        4. What is left is pushed, each with its own instruction attached.
        """
        given = list(messages)
        self._given = len(given)
        targets = [(m, node) for m in given if (node := self._target(m)) is not None]  # 1
        if targets:
            self._push(self._signed_and_open(targets, lifetime))

    def _signed_and_open(
        self, targets: list[tuple[Message, TrustedNode]], lifetime: timedelta
    ) -> list[Asked]:
        for _ in range(_MOST_STEPS):
            asked = self._sign(targets, lifetime)  # 2
            try:
                return self._open(asked)  # 3
            except Conflict as error:
                # Opened by a call whose answer was lost, or before this process began: leave that step.
                if error.reason != "step-taken":
                    raise
                self.key = replace(self.key, step=self.services.numbers.next_step())
        raise Conflict(f"expected a step of run {self.key.run_id} that was not opened before, found none")

    def _target(self, message: Message) -> TrustedNode | None:
        try:
            return self.services.nodes.find(NodeId(message.metadata.dst_node_id))
        except (CertificateRefused, Revoked) as error:
            _log.warning("node %d gets no instruction: %s", message.metadata.dst_node_id, error)
            code = _private.ErrorCode.NODE_UNAVAILABLE
            self.unsent.append(_error_reply(message, code, error.reason, str(error)))
            return None

    def _sign(self, targets: list[_Target], lifetime: timedelta) -> list[Asked]:
        memo, prepared, drafts = DigestMemo(), [], []
        for message, node in targets:
            bare, _ = detach(message.content)  # a message that is sent again carries its old instruction
            content = to_content(bare)
            digests = digest_content(content, memo=memo)
            prepared.append((message, node, bare, structure_of(content)))
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
        signed = self.services.patiently(lambda: self.services.agent.sign_instructions(tuple(drafts)), "sign")
        asked, asks_second = [], bool(self.services.policy.second_roots)
        for (message, node, bare, like), statement in zip(prepared, signed, strict=True):
            carrying = _private.copy_message(
                message, attach(bare, Carried(statement, asks_second=asks_second))
            )
            asked.append(Asked.of(node, carrying, statement, like))
            if self.key.phase is Phase.TRAIN:
                self.services.judge.first_model = self.services.judge.first_model or like
        return asked

    def _open(self, asked: list[Asked]) -> list[Asked]:
        cohort = tuple(a.member() for a in asked)
        try:
            opened = self.services.patiently(lambda: self.services.agent.open_round(self.key, cohort), "open")
        except Unavailable as error:
            self.services.go_on_without(error, what="opened", key=self.key)
            return asked
        self._is_open = True
        for who in asked:
            self._emit("instruction-signed", participant=str(who.node.participant))
        out = dict(opened.refused)
        for who in asked:
            if who.node.participant in out:
                self.refuse(
                    Refused(who, out[who.node.participant], "the coordinator does not let it take part")
                )
        return [a for a in asked if a.node.participant not in out]

    def _push(self, asked: list[Asked]) -> None:  # 4
        if not asked:
            return
        pushed = list(self.services.grid.push_messages([a.message for a in asked]))
        # Flower's grids give an id (or None) for each message in order; its simulation's leaves out
        # those that it did not take, so there the id on the message decides.
        ids = pushed if len(pushed) == len(asked) else [_id_if_taken(a.message, pushed) for a in asked]
        for who, message_id in zip(asked, ids, strict=True):
            if message_id:
                self.asked[message_id] = who
            else:
                self.refuse(Refused(who, Refusal.NO_REPLY, "the SuperLink did not take its message"))

    # --- in

    def take(self, verdict: Verdict) -> None:
        """Note the verdict on one message."""
        if isinstance(verdict, Refused):
            self.refuse(verdict)
            return
        self.answers[verdict.asked.node.participant] = verdict
        self._emit("update-verified", participant=str(verdict.asked.node.participant))

    def refuse(self, refused: Refused) -> None:
        """Note that somebody's answer does not count."""
        who = refused.asked.node.participant
        self.answers.pop(who, None)
        self.refused.append(refused)
        reason, text = str(refused.reason), refused.text
        _log.warning("%s, %s %d: refused (%s): %s", who, self.key.phase, self.key.round, reason, text)
        self._emit("update-refused", participant=str(who), reason=reason, detail=text[:_MAX_REASON])

    # --- sealed

    def seal(self) -> list[Message]:
        """Have the coordinator decide, and return what it admitted, and an error reply for everybody else.

        1. Whoever was revoked or held since it answered is dropped.
        2. Those whose replies the strategy could not average with the others' are dropped (`agree`).
        3. The coordinator seals. The receipt is verified; an update counts only if it names exactly
           the one that we verified.
        4. In training, fewer than the quorum raise `QuorumNotMet`, or count for nothing, as policy says.

        Replies come in the order in which the messages were given.
        """
        self._drop_fallen()  # 1
        self._drop_odd()  # 2
        sealed = self._receipt()  # 3
        self._check_quorum()  # 4
        replies = [answer.reply for answer in self._in_order()]
        code = _private.ErrorCode.REPLY_MESSAGE_UNAVAILABLE
        if self.key.phase is Phase.TRAIN:
            self._note_trained(sealed is not None)
        failures = [_error_reply(r.asked.message, code, str(r.reason), r.text) for r in self.refused]
        self._report(sealed)
        return [*replies, *failures, *self.unsent]

    def _drop_fallen(self) -> None:
        view = self.services.view
        for answer in tuple(self.answers.values()):
            error: FltrustError | None = answer.asked.node.fallen(view)
            if error is None:
                try:
                    view.judge(answer.update.certificate)
                except FltrustError as found:
                    error = found
            if error is not None:
                self.refuse(Refused(answer.asked, error.reason, f"after it answered: {error}"))

    def _drop_odd(self) -> None:
        policy, phase = self.services.policy, self.key.phase
        weight_key = policy.weight_key or (_WEIGHT if policy.max_weight is not None else "")
        if not weight_key or phase is Phase.QUERY:
            return
        verdicts = agree(
            tuple(self.answers.values()), phase=phase, weight_key=weight_key, max_weight=policy.max_weight
        )
        for verdict in verdicts:
            if isinstance(verdict, Refused):
                self.refuse(verdict)

    def _receipt(self) -> tuple[bytes, int] | None:
        if not self._is_open:
            return None
        candidates = tuple(answer.candidate for answer in self.answers.values())
        refused = tuple((r.asked.node.participant, str(r.reason)) for r in self.refused)
        try:
            receipt = self.services.patiently(
                lambda: self.services.agent.seal_round(self.key, candidates, refused), "seal"
            )
        except Unavailable as error:
            self.services.go_on_without(error, what="sealed", key=self.key)
            return None
        verified = self._verified(receipt)
        self._keep_admitted(verified)
        return receipt, int(verified.statement.epoch)

    def _verified(self, receipt: bytes) -> VerifiedReceipt:
        verified = self.services.verifier().verify_receipt(
            SignedStatement.from_bytes(receipt, limit=MAX_SEALED_SIGNED_BYTES),
            at=self.services.clock.now(),
            judge=self.services.view.judge,
        )
        said = verified.statement
        if RoundKey(said.run_id, said.step, said.round, said.phase) != self.key:
            raise CertificateRefused(
                "expected the receipt of this round, got that of another", reason=Refusal.WRONG_ROUND
            )
        return verified

    def _keep_admitted(self, verified: VerifiedReceipt) -> None:
        receipt = verified.statement
        admitted = {entry.participant: entry.update for entry in receipt.admitted}
        reasons = dict(receipt.refused)
        for participant, answer in tuple(self.answers.items()):
            if admitted.get(participant) != answer.update.payload_digest:
                reason = reasons.get(participant, Refusal.LATE)
                text = f"refused at the seal, at epoch {receipt.epoch}"
                self.refuse(Refused(answer.asked, reason, text))
        self._emit(
            "round-sealed",
            epoch=int(receipt.epoch),
            index=receipt.index,
            admitted=len(receipt.admitted),
            refused=len(receipt.refused),
        )

    def _check_quorum(self) -> None:
        if self.key.phase is not Phase.TRAIN or not self.has_quorum:
            return
        missing = ", ".join(sorted({f"{r.asked.node.participant.name}: {r.reason}" for r in self.refused}))
        if not self.services.meets_quorum(
            round_=self.key.round, got=len(self.answers), asked=self._given, missing=missing
        ):
            self.answers.clear()

    def _note_trained(self, is_sealed: bool) -> None:
        weight_key = self.services.policy.weight_key or _WEIGHT
        weights = {who: weight_text(answer.content, weight_key) for who, answer in self.answers.items()}
        said = tuple((who, text) for who, text in weights.items() if text is not None)
        self.services.trained.append(Trained(self.key, len(self.answers), said, is_sealed))
        self.services.retain(self.key, [kept_of(a) for a in self._in_order()] if is_sealed else [])

    def _in_order(self) -> list[Answer]:
        """What counts, in the order in which the messages were given."""
        found = (self.answers.get(who.node.participant) for who in self.asked.values())
        return [answer for answer in found if answer is not None]

    # --- shared

    def _report(self, sealed: tuple[bytes, int] | None) -> None:
        receipt, epoch = sealed or (None, None)
        self.services.reports.append(
            ExchangeReport(
                self.key,
                tuple(str(who.name) for who in self.answers),
                tuple((str(r.asked.node.participant.name), str(r.reason)) for r in self.refused),
                epoch,
                receipt,
            )
        )

    def _emit(self, event: str, **fields: str | int) -> None:
        self.services.emit(self.key, event, **fields)


def kept_of(answer: Answer) -> Kept:
    """An admitted update as it is kept."""
    update = answer.update
    return Kept(
        participant=str(answer.asked.node.participant),
        update=update.payload_digest,
        digest=update.statement.content,
        content=answer.content,
    )


def _id_if_taken(message: Message, pushed: list[str]) -> str | None:
    return message.metadata.message_id if message.metadata.message_id in pushed else None


def _error_reply(message: Message, code: int, reason: str, text: str) -> Message:
    return Message(Error(code=code, reason=f"fltrust: {reason}: {text}"[:_MAX_REASON]), reply_to=message)
