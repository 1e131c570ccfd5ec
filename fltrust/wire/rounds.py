"""Rounds on the wire. A seal travels as a stream of small messages that make one request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from fltrust.errors import Malformed, Oversized
from fltrust.identity import Digest, Epoch, KeyId, NodeId, RunId, SpiffeId
from fltrust.rounds.logged import LogEvidence, PlaceProof
from fltrust.rounds.types import Candidate, CohortMember, Opened, RoundKey, RoundRecord, RoundStatus
from fltrust.tlog.merkle import MAX_PROOF
from fltrust.tlog.note import MAX_NOTE
from fltrust.updates.intoto import Phase
from fltrust.updates.receipt import MAX_COHORT
from fltrust.updates.second import MAX_SECOND_OF_UPDATE
from fltrust.updates.signing import MAX_SEALED_SIGNED_BYTES, MAX_SIGNED_BYTES
from fltrust.wire.pb import rounds_pb2 as pb
from fltrust.wire.values import (
    MAX_MESSAGE,
    at_most,
    bounded,
    bounded_or_none,
    present,
    text_within,
    time_from_field,
    time_to_pb,
    word,
)

MAX_SEAL = 64 * 1024 * 1024
"""Bytes of all messages of one seal together."""
MAX_ROUND = MAX_SEAL + 16 * 1024 * 1024
"""Bytes of one round as it is given out: with its evidence, cohort and receipt."""
_CHUNK = MAX_MESSAGE // 2  # a chunk is closed when it passes this; with one more candidate it still fits
_MAX_REASON = 200
MAX_PLACES = 1_000_000
"""Sealed rounds of one run whose places in the log are proved together."""
MAX_VKEY = 1024

Refusals = tuple[tuple[SpiffeId, str], ...]


def key_to_pb(key: RoundKey) -> pb.RoundKey:
    return pb.RoundKey(run_id=key.run_id, step=key.step, round=key.round, phase=key.phase)


def key_from_pb(message: pb.RoundKey) -> RoundKey:
    if message.step < 1:
        raise Malformed("expected a step from 1 on, got 0")
    return RoundKey(
        run_id=RunId(message.run_id),
        step=message.step,
        round=message.round,
        phase=word(Phase, message.phase, what="a phase"),
    )


def member_to_pb(member: CohortMember) -> pb.CohortMember:
    return pb.CohortMember(
        participant=str(member.participant),
        node_id=member.node_id,
        node_key=member.node_key,
        instruction=str(member.instruction),
    )


def member_from_pb(message: pb.CohortMember) -> CohortMember:
    return CohortMember(
        participant=SpiffeId.parse(message.participant),
        node_id=NodeId(message.node_id),
        node_key=KeyId(message.node_key),
        instruction=Digest.parse(message.instruction),
    )


def refusals_to_pb(refused: Refusals) -> list[pb.RefusedMember]:
    return [pb.RefusedMember(participant=str(who), reason=reason) for who, reason in refused]


def refusals_from_pb(messages: Sequence[pb.RefusedMember]) -> Refusals:
    at_most(messages, MAX_COHORT, what="refused participants")
    return tuple(
        (SpiffeId.parse(m.participant), text_within(m.reason, limit=_MAX_REASON, what="a reason"))
        for m in messages
    )


def open_request_to_pb(key: RoundKey, cohort: tuple[CohortMember, ...]) -> pb.OpenRoundRequest:
    return pb.OpenRoundRequest(key=key_to_pb(key), cohort=[member_to_pb(m) for m in cohort])


def open_request_from_pb(message: pb.OpenRoundRequest) -> tuple[RoundKey, tuple[CohortMember, ...]]:
    present(message, "key")
    at_most(message.cohort, MAX_COHORT, what="participants in a round")
    return key_from_pb(message.key), tuple(member_from_pb(m) for m in message.cohort)


def opened_to_pb(opened: Opened) -> pb.OpenRoundResponse:
    return pb.OpenRoundResponse(epoch=opened.epoch, refused=refusals_to_pb(opened.refused))


def opened_from_pb(message: pb.OpenRoundResponse) -> Opened:
    return Opened(epoch=Epoch(message.epoch), refused=refusals_from_pb(message.refused))


def candidate_to_pb(candidate: Candidate) -> pb.Candidate:
    return pb.Candidate(instruction=candidate.instruction, update=candidate.update, second=candidate.second)


def candidate_from_pb(message: pb.Candidate) -> Candidate:
    return Candidate(
        instruction=bounded(message.instruction, limit=MAX_SIGNED_BYTES, what="a signed instruction"),
        update=bounded(message.update, limit=MAX_SIGNED_BYTES, what="a signed update"),
        second=bounded_or_none(message.second, limit=MAX_SECOND_OF_UPDATE, what="a second signature"),
    )


def seal_request_to_pb(
    key: RoundKey, candidates: tuple[Candidate, ...], refused: Refusals
) -> pb.SealRoundRequest:
    """The whole seal as one message: for a socket whose frames may be large. See `seal_chunks`."""
    return pb.SealRoundRequest(
        key=key_to_pb(key),
        candidates=[candidate_to_pb(c) for c in candidates],
        refused=refusals_to_pb(refused),
    )


def seal_chunks(
    key: RoundKey, candidates: tuple[Candidate, ...], refused: Refusals
) -> Iterator[pb.SealRoundRequest]:
    """The seal as the messages of one streamed call, in order, none above `MAX_MESSAGE`."""
    chunk = pb.SealRoundRequest(key=key_to_pb(key))
    size = chunk.ByteSize()
    parts: Iterable[pb.Candidate | pb.RefusedMember] = (
        *(candidate_to_pb(c) for c in candidates),
        *refusals_to_pb(refused),
    )
    for part in parts:
        if size > _CHUNK or size + part.ByteSize() > MAX_MESSAGE - 64:
            yield chunk
            chunk = pb.SealRoundRequest(key=key_to_pb(key))
            size = chunk.ByteSize()
        if isinstance(part, pb.Candidate):
            chunk.candidates.append(part)
        else:
            chunk.refused.append(part)
        size += part.ByteSize() + 8  # tag and length
    yield chunk


class SealParts:
    """Gathers the messages of one streamed seal; bounded by `MAX_SEAL` bytes in all."""

    def __init__(self, *, limit: int = MAX_SEAL) -> None:
        self._limit = limit
        self._size = 0
        self._key: RoundKey | None = None
        self._candidates: list[Candidate] = []
        self._refused: list[tuple[SpiffeId, str]] = []

    def add(self, message: pb.SealRoundRequest) -> None:
        """Take one message in; `Malformed` if it is for another round, `Oversized` above the bound."""
        self._size += message.ByteSize()
        if self._size > self._limit:
            raise Oversized(f"expected a seal of at most {self._limit} bytes in all, got more")
        present(message, "key")
        key = key_from_pb(message.key)
        if self._key is not None and key != self._key:
            raise Malformed("expected one round in all messages of a seal, got two")
        self._key = key
        self._candidates += [candidate_from_pb(c) for c in message.candidates]
        self._refused += refusals_from_pb(message.refused)
        at_most(self._candidates, MAX_COHORT, what="candidates in a seal")
        at_most(self._refused, MAX_COHORT, what="refused participants")

    def finish(self) -> tuple[RoundKey, tuple[Candidate, ...], Refusals]:
        """Key, candidates and refusals of the whole seal; `Malformed` if nothing came."""
        if self._key is None:
            raise Malformed("expected a seal, got no message")
        return self._key, tuple(self._candidates), tuple(self._refused)


def seal_request_from_pb(
    message: pb.SealRoundRequest,
) -> tuple[RoundKey, tuple[Candidate, ...], Refusals]:
    """Read a seal that came as one message."""
    parts = SealParts()
    parts.add(message)
    return parts.finish()


def seal_response_from_pb(message: pb.SealRoundResponse) -> bytes:
    return bounded(message.receipt, limit=MAX_SEALED_SIGNED_BYTES, what="a receipt")


def record_to_pb(record: RoundRecord, *, with_evidence: bool = True) -> pb.Round:
    return pb.Round(
        key=key_to_pb(record.key),
        status=record.status,
        aggregator=str(record.aggregator),
        opened_at=time_to_pb(record.opened_at),
        opened_epoch=record.opened_epoch,
        cohort=[member_to_pb(m) for m in record.cohort],
        receipt=record.receipt or b"",
        evidence=[candidate_to_pb(c) for c in record.evidence] if with_evidence else (),
    )


def record_from_pb(message: pb.Round) -> RoundRecord:
    present(message, "key")
    at_most(message.cohort, MAX_COHORT, what="participants in a round")
    at_most(message.evidence, MAX_COHORT, what="updates in a round")
    return RoundRecord(
        key=key_from_pb(message.key),
        status=word(RoundStatus, message.status, what="a round's status"),
        aggregator=SpiffeId.parse(message.aggregator),
        opened_at=time_from_field(message, "opened_at"),
        opened_epoch=Epoch(message.opened_epoch),
        cohort=tuple(member_from_pb(m) for m in message.cohort),
        receipt=bounded_or_none(message.receipt, limit=MAX_SEALED_SIGNED_BYTES, what="a receipt"),
        evidence=tuple(candidate_from_pb(c) for c in message.evidence),
    )


def tree_to_pb(evidence: LogEvidence) -> pb.LogTree:
    return pb.LogTree(key=evidence.key, checkpoint=evidence.checkpoint)


def tree_from_pb(message: pb.LogTree) -> tuple[str, bytes]:
    """The log's key and its checkpoint."""
    key = text_within(message.key, limit=MAX_VKEY, what="the log's key")
    return key, bounded(message.checkpoint, limit=MAX_NOTE, what="a checkpoint")


def place_to_pb(index: int, proof: PlaceProof) -> pb.PlaceProof:
    return pb.PlaceProof(index=index, inclusion=proof.inclusion, consistency=proof.consistency)


def place_from_pb(message: pb.PlaceProof) -> tuple[int, PlaceProof]:
    at_most(message.inclusion, MAX_PROOF, what="hashes in an inclusion proof")
    at_most(message.consistency, MAX_PROOF, what="hashes in a consistency proof")
    return message.index, PlaceProof(tuple(message.inclusion), tuple(message.consistency))


def evidence_to_pb(evidence: LogEvidence) -> Iterator[pb.ProveRoundsResponse]:
    """The tree first, then a message for each place."""
    yield pb.ProveRoundsResponse(tree=tree_to_pb(evidence))
    for index, proof in evidence.proofs.items():
        yield pb.ProveRoundsResponse(place=place_to_pb(index, proof))


def evidence_from_pb(messages: Iterable[pb.ProveRoundsResponse]) -> LogEvidence:
    """Read what `evidence_to_pb` writes; `Malformed` for another order, or a place that comes twice."""
    tree: tuple[str, bytes] | None = None
    proofs: dict[int, PlaceProof] = {}
    for message in messages:
        kind = message.WhichOneof("answer")
        if tree is None and kind == "tree":
            tree = tree_from_pb(message.tree)
        elif tree is not None and kind == "place":
            add_place(proofs, message.place)
        else:
            raise Malformed(f"expected the log's tree, then places in it, got {kind}")
    if tree is None:
        raise Malformed("expected the log's tree, got no message")
    return LogEvidence(*tree, proofs)


def add_place(proofs: dict[int, PlaceProof], message: pb.PlaceProof) -> None:
    """Take one more proof; `Malformed` if its place is proved already, `Oversized` past `MAX_PLACES`."""
    index, proof = place_from_pb(message)
    if index in proofs:
        raise Malformed(f"expected one proof for entry {index}, got two")
    if len(proofs) >= MAX_PLACES:
        raise Oversized(f"expected proofs of at most {MAX_PLACES} places in the log")
    proofs[index] = proof
