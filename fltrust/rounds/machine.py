"""A round as a pure machine: an event in, the next state and commands out.

    nothing ──Open──▶ open ──Seal──▶ sealed
                       └───Close──▶ abandoned

No clock, no store, no keys: whoever runs the machine fetches what an event needs under its lock and
carries the commands out in the same transaction.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TypeAlias

from fltrust.errors import (
    Conflict,
    Malformed,
    Oversized,
    PermissionDenied,
    Refusal,
)
from fltrust.identity import Digest, Epoch, Role, SpiffeId, TrustDomain
from fltrust.revocation.state import Standing, TrustState
from fltrust.rounds.admission import Offer, RefusedList, admit_all
from fltrust.rounds.types import Candidate, CohortMember, RoundKey, RoundStatus
from fltrust.updates.receipt import MAX_COHORT


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What the machine knows of one round."""

    key: RoundKey
    status: RoundStatus
    aggregator: SpiffeId
    cohort: tuple[CohortMember, ...]
    request: Digest | None = None
    """What it was sealed for; see `request_digest`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """An aggregator asks for a round. `run_owner` is who opened the run, None if this is its first round."""

    key: RoundKey
    aggregator: SpiffeId
    cohort: tuple[CohortMember, ...]
    domain: TrustDomain
    run_owner: SpiffeId | None
    run_closed: bool
    state: TrustState


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """The owner asks to seal, with what was verified and what was not."""

    key: RoundKey
    aggregator: SpiffeId
    request: Digest
    offers: tuple[Offer, ...]
    refused: RefusedList
    state: TrustState


@dataclass(frozen=True, slots=True)
class Close:
    """The run is over: what is open will not be sealed."""


RoundEvent: TypeAlias = Open | Seal | Close


@dataclass(frozen=True, slots=True)
class StartRun:
    """Record the run's owner and tell the trust feed that it is open."""


@dataclass(frozen=True, slots=True)
class RecordRound:
    """Write the round down with its cohort; `refused` were left out of it."""

    refused: RefusedList


@dataclass(frozen=True, slots=True)
class SignReceipt:
    """Sign what was decided, append it to the log, keep the evidence."""

    admitted: tuple[Offer, ...]
    refused: RefusedList
    epoch: Epoch


@dataclass(frozen=True, slots=True)
class AnswerAgain:
    """It was decided before, the same way: return the stored receipt."""


@dataclass(frozen=True, slots=True)
class Abandon:
    """Mark the round abandoned."""


Command: TypeAlias = StartRun | RecordRound | SignReceipt | AnswerAgain | Abandon


def advance(current: Round | None, event: RoundEvent) -> tuple[Round, tuple[Command, ...]]:
    """Return the round after `event`, and what to do about it. A refusal raises and changes nothing."""
    match event:
        case Open():
            return _open(current, event)
        case Seal():
            return _seal(current, event)
        case Close():
            if current is None or current.status is not RoundStatus.OPEN:
                raise Conflict("expected an open round to abandon")
            return replace(current, status=RoundStatus.ABANDONED, request=None), (Abandon(),)


def request_digest(key: RoundKey, candidates: Iterable[Candidate]) -> Digest:
    """Name what a seal was asked for: the round and its candidates, in any order."""
    hashed = sorted(
        sha256(candidate.instruction).digest() + sha256(candidate.update).digest() for candidate in candidates
    )
    head = f"fltrust-seal-request-v1\n{int(key.run_id)}\n{key.step}\n{key.round}\n{key.phase}\n".encode()
    return Digest.sha256_of(head + b"".join(hashed))


def _open(current: Round | None, event: Open) -> tuple[Round, tuple[Command, ...]]:
    """1. The run is not closed and, once it is open, its owner asks. 2. The step was never opened.
    3. The cohort is bounded, of participants, and names nobody and no node twice. 4. Members that are not
    enrolled or admitted, do not stand well, or whose node key is another, are left out and named."""
    # 1.
    _check_owner(event.key, event.aggregator, event.run_owner)
    if event.run_closed:
        raise Conflict(
            f"run {event.key.run_id} is closed",
            reason=Refusal.RUN_NOT_OPEN,
            hint="start a new run; a closed one is not opened again",
        )
    # 2.
    if current is not None:
        raise Conflict(
            f"step {event.key.step} of run {event.key.run_id} was opened before (it is {current.status})",
            reason="step-taken",
            hint="every exchange of a run takes the next step",
        )
    # 3.
    _check_cohort(event.cohort, event.domain)
    # 4.
    left_out = tuple(
        (m.participant, why) for m in event.cohort if (why := _unfit(m, event.state)) is not None
    )
    out = {who for who, _ in left_out}
    opened = Round(
        key=event.key,
        status=RoundStatus.OPEN,
        aggregator=event.aggregator,
        cohort=tuple(member for member in event.cohort if member.participant not in out),
    )
    record: tuple[Command, ...] = (RecordRound(left_out),)
    return opened, record if event.run_owner is not None else (StartRun(), *record)


def _seal(current: Round | None, event: Seal) -> tuple[Round, tuple[Command, ...]]:
    """1. The round is known, under this key, and its owner asks. 2. Sealed for the same candidates: the
    stored answer; for others, or abandoned: `Conflict`. 3. Every offer is admitted or refused, by `admit`;
    the very same update offered twice counts once."""
    # 1.
    if current is None or current.key != event.key:
        raise Conflict(
            f"expected a round that was opened as step {event.key.step} of run {event.key.run_id}, "
            f"round {event.key.round}, {event.key.phase}; there is none",
            reason="round-unknown",
        )
    _check_owner(event.key, event.aggregator, current.aggregator)
    # 2.
    if current.status is RoundStatus.SEALED and current.request == event.request:
        return current, (AnswerAgain(),)
    if current.status is not RoundStatus.OPEN:
        raise Conflict(
            f"step {event.key.step} of run {event.key.run_id} is {current.status} already",
            reason=Refusal.LATE if current.status is RoundStatus.SEALED else Refusal.RUN_NOT_OPEN,
            hint="what was sealed stays as it is",
        )
    # 3.
    cohort = {member.participant: member for member in current.cohort}
    admitted, refused = admit_all(event.offers, cohort=cohort, state=event.state)
    merged = tuple(dict.fromkeys((*event.refused, *refused)))
    sealed = replace(current, status=RoundStatus.SEALED, request=event.request)
    return sealed, (SignReceipt(admitted, merged, event.state.epoch),)


def _check_owner(key: RoundKey, asking: SpiffeId, owner: SpiffeId | None) -> None:
    if owner is not None and asking != owner:
        raise PermissionDenied(
            f"run {key.run_id} belongs to {owner}, {asking} asked",
            hint="only the one that opened a run acts on it",
        )


def _check_cohort(cohort: tuple[CohortMember, ...], domain: TrustDomain) -> None:
    if not 1 <= len(cohort) <= MAX_COHORT:
        raise Oversized(f"expected a cohort of 1 to {MAX_COHORT} participants, got {len(cohort)}")
    for member in cohort:
        who = member.participant
        if who.role is not Role.PARTICIPANT:
            raise Malformed(f"expected participants in a cohort of {domain}, got {who}")
        if member.instruction.algorithm != "sha256" or len(member.instruction.value) != 32:
            raise Malformed(f"expected the SHA-256 of the instruction for {who}")
    for what, values in (
        ("participant", {member.participant for member in cohort}),
        ("node id", {member.node_id for member in cohort}),
        ("node key", {member.node_key for member in cohort}),
        ("instruction", {member.instruction for member in cohort}),
    ):
        if len(values) != len(cohort):
            raise Malformed(
                f"expected every {what} once in a cohort, got one twice", reason=Refusal.DUPLICATE
            )


def _unfit(member: CohortMember, state: TrustState) -> str | None:
    known = state.identities.get(member.participant)
    if known is None:
        return Refusal.UNKNOWN_IDENTITY
    if known.standing is not Standing.ACTIVE:
        return Refusal.HELD if known.standing is Standing.HELD else Refusal.REVOKED
    return None if known.node_key == member.node_key else Refusal.WRONG_NODE
