"""What contains a participant's updates from a time on: rounds, aggregates and models, across runs."""

from __future__ import annotations

from collections.abc import Container
from datetime import datetime

from fltrust.artifacts.keeping import AggregateRecord, ContributionRecord, ModelRecord
from fltrust.artifacts.ports import BlastRadius, SpoiltAggregate, SpoiltModel, SpoiltRound, StepOfRun
from fltrust.coordinator.ports import Transaction
from fltrust.identity import Digest, RunId, SpiffeId
from fltrust.tlog.entries import SealedRound, parse_entry


def blast_radius(
    tx: Transaction, who: SpiffeId, since: datetime, *, certificates: Container[Digest] | None = None
) -> BlastRadius:
    """Everything that contains what `who` signed at `since` or later.

    1. Contributions: admitted updates by `who`, signed then; with `certificates`, only those signed with
       one of them.
    2. Rounds: those that admitted one. Aggregates, directly: those of these rounds, and of their replays
       that kept the update.
    3. Aggregates, derived: every one whose ancestry holds one of 2, across runs. What comes from what is
       decided when an aggregate is recorded (`fltrust.coordinator.descent`).
    4. Models: those that say they come from an aggregate of 2 or 3, or hold a file of its very tensors.
    """
    given = [
        item
        for item in tx.contributions.of(who, since=since)  # 1.
        if certificates is None or item.certificate in certificates
    ]
    direct = {StepOfRun(item.run_id, item.step) for item in given}  # 2.
    aggregates = tx.aggregates.descendants(sorted(direct, key=_order))  # 3.
    models = models_of(tx, aggregates)  # 4.
    of_direct = {m.log_index for m in models_of(tx, [a for a in aggregates if a.place in direct])}
    return BlastRadius(
        participant=who,
        since=since,
        rounds=_rounds(tx, given),
        aggregates=tuple(spoilt_aggregate(a, is_direct=a.place in direct) for a in aggregates),
        models=tuple(spoilt_model(m, is_direct=m.log_index in of_direct) for m in models),
    )


def models_of(
    tx: Transaction, aggregates: list[AggregateRecord] | tuple[AggregateRecord, ...]
) -> tuple[ModelRecord, ...]:
    """Released models that come from one of these aggregates, by their word or by their tensors."""
    return tx.models.made_of([a.place for a in aggregates], {a.tensors: None for a in aggregates})


def spoilt_aggregate(record: AggregateRecord, *, is_direct: bool) -> SpoiltAggregate:
    return SpoiltAggregate(
        record.run_id, record.step, record.round, record.tensors, record.log_index, is_direct
    )


def spoilt_model(record: ModelRecord, *, is_direct: bool) -> SpoiltModel:
    return SpoiltModel(record.name, record.subject, record.log_index, is_direct)


def _rounds(tx: Transaction, given: list[ContributionRecord]) -> tuple[SpoiltRound, ...]:
    """The sealed rounds among the contributions; a replay has contributions and is no round."""
    found: list[SpoiltRound] = []
    runs: dict[RunId, bool] = {}
    for item in given:
        if item.run_id not in runs:
            runs[item.run_id] = tx.rounds.run(item.run_id) is not None
        if not runs[item.run_id]:
            continue
        (logged,) = tx.tlog.read(item.log_index, item.log_index + 1)
        entry = parse_entry(logged.data)
        number = entry.round if isinstance(entry, SealedRound) else 0
        found.append(SpoiltRound(item.run_id, item.step, number, item.log_index, item.signed_at))
    return tuple(found)


def _order(place: StepOfRun) -> tuple[int, int]:
    return int(place.run_id), place.step
