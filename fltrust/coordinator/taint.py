"""Taint: what holds updates that count as compromised, written down when that becomes known.

Two ways lead to it, and both are the transaction of what causes them. A revocation that says since when
taints everything that is recorded by then (`TaintDesk.spread`). What is recorded later and holds such
updates, or descends from what does, is tainted as it is recorded (`TaintDesk.inherit`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from fltrust.artifacts.keeping import AggregateRecord, ContributionRecord, ModelRecord, Taint, TaintedKind
from fltrust.artifacts.ports import BlastRadius, StepOfRun
from fltrust.coordinator.blast import blast_radius
from fltrust.coordinator.ledger import Ledger, Work
from fltrust.coordinator.logbook import run_subject
from fltrust.coordinator.ports import Transaction
from fltrust.identity import Digest, Epoch, Role, RunId, SpiffeId
from fltrust.revocation.events import EventKind, TrustEvent
from fltrust.tlog.entries import Taint as TaintEntry
from fltrust.tlog.entries import TaintedAggregate, TaintedModel, TaintedRound, new_entry

MAX_CAUSES = 16
"""Causes that one aggregate or model takes over as it is recorded. It is tainted after the first."""

_MAX_MODEL_NAME = 256


@dataclass(frozen=True, slots=True)
class Compromise:
    """What `who` signed at `since` or later is not to be believed, as of `epoch`; with `certificates`, what
    it signed with one of them."""

    who: SpiffeId
    epoch: Epoch
    since: datetime
    certificates: frozenset[Digest] | None

    def covers(self, contribution: ContributionRecord) -> bool:
        return (
            contribution.participant == self.who
            and contribution.signed_at >= self.since
            and (self.certificates is None or contribution.certificate in self.certificates)
        )


class _Item(Protocol):
    @property
    def is_direct(self) -> bool: ...


_Cause = tuple[SpiffeId, Epoch, datetime]


def aggregate_key(place: StepOfRun) -> str:
    """`Taint.key` of an aggregate."""
    return f"{int(place.run_id)}/{place.step}"


def place_of(key: str) -> StepOfRun:
    """The aggregate that `aggregate_key` names."""
    run_id, _, step = key.partition("/")
    return StepOfRun(RunId(int(run_id)), int(step))


class TaintDesk:
    """Writes taints: rows, and entries of the log."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._known: dict[SpiffeId, tuple[Compromise, ...]] = {}
        self._epoch = Epoch(0)

    def spread(self, work: Work, event: TrustEvent) -> BlastRadius | None:
        """Taint what contains the updates that a revocation takes back; None if it takes back none.

        The log says what is tainted now and was not, or was only derived and is direct: one entry at least.
        """
        compromise = _compromise(work.tx, event)
        if compromise is None or compromise.who.role is not Role.PARTICIPANT:
            return None
        return self._taint(work, compromise)

    def disown(self, work: Work, event: TrustEvent) -> int:
        """Taint what holds updates that were signed, since a CA's key was in other hands, with certificates
        that nobody was issued here; returns how many updates those are."""
        since, count = event.compromised_since or datetime(1970, 1, 1, tzinfo=UTC), 0
        ours = work.book.domain  # what another domain issued is not on record here
        for who in [n for n in work.state.identities if n.role is Role.PARTICIPANT and n.domain == ours]:
            signed = work.tx.contributions.of(who, since=since)
            if not signed:
                continue
            issued = {Digest.sha256_of(record.der) for record in work.tx.certificates.of(who)}
            forged = frozenset(item.certificate for item in signed) - issued
            if forged:
                count += sum(item.certificate in forged for item in signed)
                self._taint(work, Compromise(who, event.epoch, since, forged))
        return count

    def _taint(self, work: Work, compromise: Compromise) -> BlastRadius:
        found = blast_radius(work.tx, compromise.who, compromise.since, certificates=compromise.certificates)
        known = _known_of(work.tx, compromise.who)
        aggregates = [
            (aggregate_key(StepOfRun(item.run_id, item.step)), item)
            for item in found.aggregates
            if _is_news(known, TaintedKind.AGGREGATE, aggregate_key(StepOfRun(item.run_id, item.step)), item)
        ]
        models = [
            (str(item.log_index), item)
            for item in found.models
            if _is_news(known, TaintedKind.MODEL, str(item.log_index), item)
        ]
        cause = (compromise.who, compromise.epoch, compromise.since)
        places = _log(
            work,
            cause,
            rounds=[TaintedRound(item.run_id, item.step) for item in found.rounds],
            aggregates=[
                TaintedAggregate(item.run_id, item.step, item.tensors, item.is_direct)
                for _, item in aggregates
            ],
            models=[
                TaintedModel(item.name[:_MAX_MODEL_NAME], item.subject, item.is_direct) for _, item in models
            ],
        )
        _write(work, cause, TaintedKind.AGGREGATE, aggregates, places)
        _write(work, cause, TaintedKind.MODEL, models, places)
        return found

    def catch_up(self) -> None:
        """Read what was revoked since the last time, outside of any transaction that writes."""
        with self._ledger.reading() as tx:
            with self._lock:
                after = self._epoch
            head = tx.events.head
            found = [c for event in tx.events.read(after) if (c := _compromise(tx, event)) is not None]
        with self._lock:
            if self._epoch == after:  # else another thread was here, and read the same
                for item in found:
                    self._known[item.who] = (*self._known.get(item.who, ()), item)
                self._epoch = head

    def inherit(
        self, work: Work, record: AggregateRecord, contributions: Sequence[ContributionRecord]
    ) -> None:
        """Taint an aggregate that is being recorded, if it holds compromised updates or descends from it.

        1. Directly, for each of its contributions that a revocation takes back.
        2. Else for each taint of an aggregate that it comes from.
        3. With it the models of its very tensors that were signed before it was recorded.
        """
        causes: dict[_Cause, bool] = {}
        known = self._compromises(work.tx, {item.participant for item in contributions})
        for update in contributions:  # 1.
            for compromise in known.get(update.participant, ()):
                if compromise.covers(update):
                    causes[compromise.who, compromise.epoch, compromise.since] = True
        parents = ([] if record.parent is None else [record.parent]) + list(record.same_as)
        for place in parents:  # 2.
            for taint in work.tx.taints.of(TaintedKind.AGGREGATE, aggregate_key(place)):
                causes.setdefault((taint.cause, taint.epoch, taint.since), False)
        released = work.tx.models.made_of((), (record.tensors,)) if causes else ()
        for cause, is_direct in _some(causes):
            item = TaintedAggregate(record.run_id, record.step, record.tensors, is_direct)
            models = [  # 3.
                (str(model.log_index), TaintedModel(model.name[:_MAX_MODEL_NAME], model.subject, is_direct))
                for model in released
                if not _is_tainted_by(work.tx, cause[0], model)
            ]
            logged = _log(work, cause, aggregates=[item], models=[model for _, model in models])
            _write(work, cause, TaintedKind.AGGREGATE, [(aggregate_key(record.place), item)], logged)
            _write(work, cause, TaintedKind.MODEL, models, logged)

    def inherit_model(self, work: Work, record: ModelRecord, places: Iterable[StepOfRun]) -> None:
        """Taint a model that is being recorded, if one of the aggregates that it comes from is tainted."""
        causes: dict[_Cause, bool] = {}
        for place in places:
            for taint in work.tx.taints.of(TaintedKind.AGGREGATE, aggregate_key(place)):
                cause = (taint.cause, taint.epoch, taint.since)
                causes[cause] = causes.get(cause, False) or taint.is_direct
        for cause, is_direct in _some(causes):
            item = TaintedModel(record.name[:_MAX_MODEL_NAME], record.subject, is_direct)
            logged = _log(work, cause, models=[item])
            _write(work, cause, TaintedKind.MODEL, [(str(record.log_index), item)], logged)

    def _compromises(
        self, tx: Transaction, of: Iterable[SpiffeId]
    ) -> Mapping[SpiffeId, tuple[Compromise, ...]]:
        """Those known, and those of this transaction's moment, which is not kept: it may be undone."""
        with self._lock:
            found = {who: known for who in of if (known := self._known.get(who))}
            after = self._epoch
        wanted = set(of)
        for event in tx.events.read(after):
            item = _compromise(tx, event)
            if item is not None and item.who in wanted:
                found[item.who] = (*found.get(item.who, ()), item)
        return found


def _compromise(tx: Transaction, event: TrustEvent) -> Compromise | None:
    """What a revocation takes back: of an identity all, of a certificate or key what it signed."""
    if event.kind is not EventKind.REVOKED or event.subject is None or event.compromised_since is None:
        return None
    certificates = None
    if not event.identity_wide:
        records = [tx.certificates.by_serial(serial) for serial in event.serials]
        records += [record for key in event.keys for record in tx.certificates.all_by_key(key)]
        certificates = frozenset(Digest.sha256_of(r.der) for r in records if r is not None)
    return Compromise(event.subject, event.epoch, event.compromised_since, certificates)


def _known_of(tx: Transaction, who: SpiffeId) -> dict[tuple[TaintedKind, str], bool]:
    """What is tainted by this cause already, and whether directly."""
    known: dict[tuple[TaintedKind, str], bool] = {}
    for taint in tx.taints.all():
        if taint.cause == who:
            known[taint.what, taint.key] = known.get((taint.what, taint.key), False) or taint.is_direct
    return known


def _is_tainted_by(tx: Transaction, who: SpiffeId, model: ModelRecord) -> bool:
    return any(taint.cause == who for taint in tx.taints.of(TaintedKind.MODEL, str(model.log_index)))


def _is_news(known: Mapping[tuple[TaintedKind, str], bool], what: TaintedKind, key: str, item: _Item) -> bool:
    before = known.get((what, key))
    return before is None or (item.is_direct and not before)


def _some(causes: Mapping[_Cause, bool]) -> list[tuple[_Cause, bool]]:
    """At most `MAX_CAUSES`, the direct ones first."""
    return sorted(causes.items(), key=lambda item: not item[1])[:MAX_CAUSES]


def _log(
    work: Work,
    cause: _Cause,
    *,
    rounds: Sequence[TaintedRound] = (),
    aggregates: Sequence[TaintedAggregate] = (),
    models: Sequence[TaintedModel] = (),
) -> list[int]:
    """Log a finding, in as many entries as it needs; where they stand."""
    who, epoch, since = cause
    entries = TaintEntry.of(
        at=work.now,
        epoch=epoch,
        participant=work.book.names.of(who),
        since=since,
        rounds=rounds,
        aggregates=aggregates,
        models=models,
    )
    found = []
    for entry in entries:
        ids = [item.run_id for item in entry.rounds] + [item.run_id for item in entry.aggregates]
        runs = dict.fromkeys(map(run_subject, ids))
        found.append(work.log(new_entry(entry, subjects=(str(who), *runs))).index)
    return found


def _write(
    work: Work,
    cause: _Cause,
    what: TaintedKind,
    items: Sequence[tuple[str, _Item]],
    places: Sequence[int],
) -> None:
    """Keep a row for each item; the entries hold `TaintEntry.MAX_ITEMS` of them each, in order."""
    who, epoch, since = cause
    for number, (key, item) in enumerate(items):
        work.tx.taints.add(
            Taint(
                what=what,
                key=key,
                cause=who,
                epoch=epoch,
                since=since,
                is_direct=item.is_direct,
                log_index=places[number // TaintEntry.MAX_ITEMS],
            )
        )
