"""What the coordinator keeps of where models come from, read."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from fltrust.artifacts.ports import BlastRadius, RoundFacts, StepOfRun
from fltrust.coordinator.blast import blast_radius
from fltrust.coordinator.facts import sealed_facts
from fltrust.coordinator.ledger import Ledger
from fltrust.coordinator.public_names import PublicNaming
from fltrust.errors import Malformed, NotFound, PermissionDenied
from fltrust.identity import Digest, RunId, SpiffeId
from fltrust.pki.types import VerifiedCertificate

MAX_STEPS = 100_000
"""Statements of one lineage; the same bound as where it is verified."""


class LineageDesk:
    """The reading half of `LineageArchive`, over the coordinator's own tables."""

    def __init__(self, *, ledger: Ledger, names: PublicNaming) -> None:
        self._ledger = ledger
        self._names = names

    def describe_round(self, caller: VerifiedCertificate, run_id: RunId, step: int) -> RoundFacts:
        """What the provenance of this round's aggregate must say, for the run's owner."""
        with self._ledger.reading() as tx:
            run, record = tx.rounds.run(run_id), tx.rounds.get(run_id, step)
        if run is not None and run.aggregator != caller.spiffe_id:
            raise PermissionDenied(
                f"run {int(run_id)} belongs to {run.aggregator}, {caller.spiffe_id} asked about it"
            )
        if run is None or record is None:
            raise NotFound(f"no round at step {step} of run {int(run_id)}")
        return sealed_facts(record, self._names).facts

    def find_lineage(self, query: Digest | StepOfRun) -> Iterator[bytes]:
        """Bundles from the aggregate asked for back to where it began, each read when it is asked for.

        Of several aggregates with the same tensors, the first that was made of something, else the first:
        nobody can have stated it before there was one, and later anybody can. `NotFound`, at once, if there
        is none.
        """
        with self._ledger.reading() as tx:
            if isinstance(query, StepOfRun):
                found = tx.aggregates.get(query.run_id, query.step)
            else:
                if query.algorithm != "sha256":
                    raise Malformed(f"expected the sha256 digest of a tensor set, got {query}")
                known = tx.aggregates.by_tensors(query)
                found = next(reversed([r for r in known if r.previous is not None] or known), None)
            if found is None:
                raise NotFound(
                    f"no aggregate {_words(query)} was recorded here",
                    hint="the aggregator records one after each round of training; see: fltrust rounds list",
                )
            places = tx.aggregates.ancestry(found.place, limit=MAX_STEPS)
        return self._bundles(places)

    def blast_radius(self, who: SpiffeId, since: datetime) -> BlastRadius:
        """See `fltrust.coordinator.blast`. `NotFound` for who was never enrolled."""
        if since.tzinfo is None:
            raise Malformed("expected an aware time to ask a blast radius from")
        if who not in self._ledger.identities():
            raise NotFound(f"{who} was never enrolled", hint="list who is: fltrust participants list")
        with self._ledger.reading() as tx:
            return blast_radius(tx, who, since)

    def _bundles(self, places: tuple[StepOfRun, ...]) -> Iterator[bytes]:
        for place in places:
            with self._ledger.reading() as tx:
                record = tx.aggregates.get(place.run_id, place.step)
            if record is None:
                raise NotFound(f"the aggregate at step {place.step} of run {int(place.run_id)} is gone")
            yield record.bundle


def _words(query: Digest | StepOfRun) -> str:
    if isinstance(query, StepOfRun):
        return f"at step {query.step} of run {int(query.run_id)}"
    return f"of the tensors {query}"
