"""The log's first entry, and what a database had recorded before it had a log."""

from __future__ import annotations

from collections.abc import Iterator

from fltrust import strictjson
from fltrust.artifacts.keeping import ContributionRecord
from fltrust.coordinator.ledger import Work
from fltrust.coordinator.logbook import run_subject
from fltrust.errors import Conflict, StorageUnavailable
from fltrust.identity import Digest, Epoch
from fltrust.rounds.types import RoundRecord
from fltrust.strictjson import Fields
from fltrust.tlog.entries import LogOpened, PublicName, SealedRound, new_entry, parse_entry
from fltrust.tlog.note import NoteKey
from fltrust.tlog.ports import NewEntry
from fltrust.updates.intoto import MAX_SEALED_PAYLOAD_BYTES
from fltrust.updates.receipt import MAX_COHORT
from fltrust.updates.signing import MAX_SEALED_SIGNED_BYTES, SignedStatement
from fltrust.updates.statement import UpdateStatement
from fltrust.updates.verify import unverified_statement

_AT_ONCE = 256


def open_log(work: Work, key: NoteKey) -> None:
    """Write the first entry, or check that the log which is there was opened with this key and naming.

    A database that comes from before there was a log holds certificates, trust events and sealed rounds:
    they follow the first entry in this order, each kind as it came to be, and the first entry says how
    many they are (`LogOpened.imported`). Such an entry proves what was recorded when the log was
    opened, not that it was so before.

    `Conflict` where the log was opened with another key (``log-key``) or another choice of public names
    (``public-names``): both are for good.
    """
    if work.tx.tlog.head.size:
        _check_opened(work, key)
        return
    history = [*_certificates(work), *_events(work)]
    rounds = list(_rounds(work))
    opened = LogOpened(
        at=work.now,
        domain=work.book.domain,
        origin=key.name,
        log_key=str(key.verifier),
        public_names=work.book.names.mode,
        imported=len(history) + len(rounds),
    )
    work.log(new_entry(opened))
    for start in range(0, len(history), _AT_ONCE):
        work.tx.tlog.append(history[start : start + _AT_ONCE])
    for record, entry in rounds:
        index = work.log(entry).index
        work.tx.rounds.place(record.key, index=index)
        work.tx.contributions.add_all(_contributions(record, index, work))


def _check_opened(work: Work, key: NoteKey) -> None:
    (first,) = work.tx.tlog.read(0, 1)
    opened = parse_entry(first.data)
    if not isinstance(opened, LogOpened):
        raise StorageUnavailable(f"expected the log to begin with its opening, found {first.kind}")
    if (opened.origin, opened.log_key) != (key.name, str(key.verifier)):
        raise Conflict(
            f"expected the key that the log {opened.origin} was opened with, got another",
            reason="log-key",
            hint="use the coordinator's folder and database that belong together: restore log/note.key",
        )
    if opened.public_names is not work.book.names.mode:
        raise Conflict(
            f"the log was opened with public names {opened.public_names}, the settings say "
            f"{work.book.names.mode}",
            reason="public-names",
            hint="the choice is for good: put it back as it was",
        )


def _certificates(work: Work) -> Iterator[NewEntry]:
    for record in work.tx.certificates.all():
        yield work.book.certificate(record, at=work.now)


def _events(work: Work) -> Iterator[NewEntry]:
    for event in work.tx.events.read(Epoch(0)):
        yield work.book.event(event)


def _rounds(work: Work) -> Iterator[tuple[RoundRecord, NewEntry]]:
    """Receipts of version 1 with their entries; the verifiers of today do not read that version."""
    for record in work.tx.rounds.unlogged():
        payload = SignedStatement.from_bytes(
            record.receipt or b"", limit=MAX_SEALED_SIGNED_BYTES
        ).envelope.payload
        statement = strictjson.decode(payload, limit=MAX_SEALED_PAYLOAD_BYTES, what="a receipt")
        said = Fields(statement["predicate"], "a receipt")
        entry = SealedRound(
            at=said.time("sealedAt"),
            run_id=record.key.run_id,
            step=record.key.step,
            round=record.key.round,
            phase=record.key.phase,
            aggregator=PublicName(str(record.aggregator)),
            epoch=Epoch(said.decimal("epoch", bits=63)),
            admitted=len(said.objects("admitted", limit=MAX_COHORT)),
            refused=len(said.objects("refused", limit=MAX_COHORT)),
            receipt=Digest.sha256_of(payload),
        )
        subjects = (run_subject(record.key.run_id), str(record.aggregator))
        yield record, new_entry(entry, subjects=subjects)


def _contributions(record: RoundRecord, index: int, work: Work) -> Iterator[ContributionRecord]:
    found = work.tx.rounds.get(record.key.run_id, record.key.step)
    for candidate in () if found is None else found.evidence:
        signed = SignedStatement.from_bytes(candidate.update)
        said = unverified_statement(signed)  # it was verified when the round was sealed
        if isinstance(said, UpdateStatement):
            yield ContributionRecord(
                run_id=record.key.run_id,
                step=record.key.step,
                participant=said.participant,
                signed_at=said.signed_at,
                update=signed.envelope.payload_digest,
                certificate=said.certificate,
                log_index=index,
            )
