"""What a sealed round says, for the provenance of its aggregate to agree with."""

from __future__ import annotations

from dataclasses import dataclass

from fltrust.artifacts.ports import Contribution, RoundFacts
from fltrust.coordinator.public_names import PublicNaming
from fltrust.errors import NotFound
from fltrust.identity import Digest, SpiffeId
from fltrust.rounds.types import RoundRecord
from fltrust.updates.dsse import MAX_SEALED_ENVELOPE_BYTES, Envelope
from fltrust.updates.receipt import SealedRoundStatement
from fltrust.updates.signing import MAX_SEALED_SIGNED_BYTES, SignedStatement
from fltrust.updates.statement import InstructionStatement, parse_statement


@dataclass(frozen=True, slots=True)
class SealedFacts:
    """`facts` as the aggregator is told them, and what else decides.

    `models` are the digests of all models that the instructions of admitted updates state: one, unless
    the strategy sent every participant another.
    """

    facts: RoundFacts
    aggregator: SpiffeId
    models: frozenset[Digest]


def sealed_facts(record: RoundRecord, names: PublicNaming) -> SealedFacts:
    """Read a sealed round, with its evidence. The statements in it were verified when it was sealed.

    `NotFound` for a round that is not sealed, or that admitted nothing: it has no aggregate.
    """
    key = record.key
    if record.receipt is None:
        raise NotFound(f"step {key.step} of run {int(key.run_id)} is {record.status}, not sealed")
    signed = SignedStatement.from_bytes(record.receipt, limit=MAX_SEALED_SIGNED_BYTES)
    envelope = Envelope.from_json(signed.envelope_json, limit=MAX_SEALED_ENVELOPE_BYTES)
    receipt = SealedRoundStatement.from_payload(envelope.payload)
    models = tuple(_instructed_model(candidate.instruction) for candidate in record.evidence)
    if not models:
        raise NotFound(f"step {key.step} of run {int(key.run_id)} admitted no update, it has no aggregate")
    facts = RoundFacts(
        run_id=receipt.run_id,
        step=receipt.step,
        round=receipt.round,
        epoch=receipt.epoch,
        log_index=receipt.index,
        receipt=envelope.payload_digest,
        trained_from=models[0],
        opened_at=receipt.opened_at,
        sealed_at=receipt.sealed_at,
        contributions=tuple(
            Contribution(
                participant=entry.participant,
                public_name=names.of(entry.participant),
                update=entry.update,
                certificate=entry.certificate,
            )
            for entry in receipt.admitted
        ),
    )
    return SealedFacts(facts, receipt.aggregator, frozenset(models))


def _instructed_model(instruction: bytes) -> Digest:
    statement = parse_statement(SignedStatement.from_bytes(instruction).envelope.payload)
    if not isinstance(statement, InstructionStatement):
        raise NotFound("expected the evidence of a sealed round to be instructions and updates")
    return statement.model
