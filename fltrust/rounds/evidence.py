"""From a candidate's bytes to an offer: both statements verified against the round they are for."""

from __future__ import annotations

from datetime import datetime

from fltrust.clock import to_rfc3339
from fltrust.errors import FltrustError, Refusal
from fltrust.identity import Role, SpiffeId
from fltrust.pki.types import VerifiedCertificate
from fltrust.pki.verify import CLOCK_SKEW
from fltrust.rounds.admission import Offer
from fltrust.rounds.types import Candidate, CohortMember, RoundKey
from fltrust.updates.expect import expect, refused
from fltrust.updates.second import SecondSignature, require_consistent
from fltrust.updates.signing import SignedStatement
from fltrust.updates.statement import InstructionStatement
from fltrust.updates.verify import ExpectedUpdate, Opened, Verifier, claimed_at


class CandidateRefused(Exception):
    """Why a candidate is no offer, and whose it is: None if that could not be established."""

    def __init__(self, participant: SpiffeId | None, error: FltrustError) -> None:
        super().__init__(str(error))
        self.participant = participant
        self.error = error


def check_candidate(
    candidate: Candidate,
    *,
    key: RoundKey,
    aggregator: SpiffeId,
    opened_at: datetime,
    cohort: dict[SpiffeId, CohortMember],
    verifier: Verifier,
    now: datetime,
) -> Offer:
    """Verify both statements of a candidate; raise `CandidateRefused`. Standing is judged at the seal.

    1. The instruction is signed by the round's aggregator, with a certificate that was valid when the
       round was opened: the cohort names its digest, so it existed then.
    2. It is for this run, round, phase and step, and for a member of the cohort: participant, node id,
       node key and digest are the cohort's.
    3. The update is a participant's answer to it in every field (`Verifier.verify_update`).
    4. It was signed after the instruction was issued and not after `now`, give or take `CLOCK_SKEW`,
       with a certificate that was valid then. So an update is not lost because its certificate ran
       out while the round waited for others, and cannot be dated back before the round.
    5. A second signature beside it is over the same payload, by the key of its own leaf, which names the
       participant (`require_consistent`). Whether that leaf counts is for those to say who have a root.
    """
    try:
        # 1.
        instruction = _open_instruction(candidate, verifier=verifier, at=opened_at)
        statement = instruction.statement
        if not isinstance(statement, InstructionStatement):
            raise refused("an instruction", statement.predicate_type, Refusal.UNKNOWN_TYPE)
        expect(statement.aggregator, aggregator, "aggregator", Refusal.UNKNOWN_IDENTITY)
        # 2.
        expect(statement.run_id, key.run_id, "run", Refusal.WRONG_RUN)
        expect(statement.step, key.step, "step", Refusal.WRONG_ROUND)
        expect(statement.round, key.round, "round", Refusal.WRONG_ROUND)
        expect(statement.phase, key.phase, "phase", Refusal.WRONG_PHASE)
    except FltrustError as error:
        raise CandidateRefused(None, error) from error
    who = statement.participant
    try:
        member = cohort.get(who)
        if member is None:
            raise refused("a member of the cohort", who, Refusal.WRONG_PARTICIPANT)
        expect(statement.node_id, member.node_id, "node", Refusal.WRONG_NODE)
        expect(statement.node_key, member.node_key, "node key", Refusal.WRONG_NODE)
        expect(instruction.payload_digest, member.instruction, "instruction", Refusal.WRONG_INSTRUCTION)
        # 3. and 4.
        signed = SignedStatement.from_bytes(candidate.update)
        claimed = claimed_at(signed)
        _check_time(claimed, issued_at=statement.issued_at, now=now)
        update = verifier.verify_update(
            signed,
            at=claimed,
            judge=_judged_later,
            expected=ExpectedUpdate.answering(statement, instruction=instruction.payload_digest),
            content=None,
        )
        # 5.
        if candidate.second is not None:
            second = SecondSignature.of_update(candidate.second)
            require_consistent(second, payload=signed.envelope.payload, who=who)
    except FltrustError as error:
        raise CandidateRefused(who, error) from error
    return Offer(
        candidate=candidate,
        participant=who,
        node_id=member.node_id,
        instruction=instruction.payload_digest,
        update=update.payload_digest,
        content=update.statement.content,
        signed_at=update.statement.signed_at,
        certificate=update.certificate,
        instructed_by=instruction.certificate,
    )


def _open_instruction(candidate: Candidate, *, verifier: Verifier, at: datetime) -> Opened:
    signed = SignedStatement.from_bytes(candidate.instruction)
    return verifier.open(signed, at=at, role=Role.AGGREGATOR, judge=_judged_later)


def _check_time(claimed: datetime, *, issued_at: datetime, now: datetime) -> None:
    if not issued_at - CLOCK_SKEW <= claimed <= now + CLOCK_SKEW:
        raise refused(
            f"signing between {to_rfc3339(issued_at)} and {to_rfc3339(now)}",
            to_rfc3339(claimed),
            Refusal.EXPIRED,
        )


def _judged_later(_certificate: VerifiedCertificate) -> None:
    """Standing is judged once, under the lock that fixes the epoch."""
