"""The provenance of aggregates: stated from what the coordinator sealed, signed here, countersigned there."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TypeVar

from fltrust.agent.leaf import SigningLeaf
from fltrust.agent.ports import AggregateDraft, AggregatorUpstream
from fltrust.artifacts.bundle import SigstoreBundle
from fltrust.artifacts.envelope import SignedEnvelope
from fltrust.artifacts.inputs import ModelInput, SealedIn, UpdateInput
from fltrust.artifacts.ports import RoundFacts, StepOfRun
from fltrust.artifacts.provenance import BuildType, Provenance
from fltrust.clock import Clock
from fltrust.errors import Conflict, Malformed, NotFound
from fltrust.identity import Digest, SpiffeId
from fltrust.updates import Phase

_REMEMBERED = 64
"""Steps whose provenance is kept at hand, of all runs: the next step names the one before."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Pending:
    """Signed, and not known to be countersigned: the same envelope again gives the same bundle."""

    draft: AggregateDraft
    provenance: Provenance
    envelope: bytes
    certificate: bytes


class AggregateRecorder:
    """States, signs and has countersigned what a strategy made.

    1. The facts of the round come from the coordinator: who was admitted, by which names, at which epoch.
    2. The aggregate before is the one recorded for the step that the draft names. An initial model comes from
       the aggregate of the same tensors, if the coordinator knows one.
    3. What only the app's process knows is taken as it says: the aggregate's digests, weights, and the app.
    4. The signature is by a code-signing key that never leaves this process.
    5. The bundle that comes back is about the very statement that was signed.
    """

    def __init__(self, upstream: AggregatorUpstream, *, clock: Clock) -> None:
        self._upstream = upstream
        self._clock = clock
        self._leaf = SigningLeaf(upstream, clock=clock)
        self._lock = threading.Lock()
        self._known: OrderedDict[StepOfRun, ModelInput] = OrderedDict()
        self._pending: OrderedDict[StepOfRun, _Pending] = OrderedDict()

    def record(self, draft: AggregateDraft, *, builder: SpiffeId) -> bytes:
        """The Sigstore bundle of the draft's provenance, durable at the coordinator.

        The same draft again gives the bundle that there is; another one for its step raises `Conflict`.
        """
        where = StepOfRun(draft.run_id, draft.step)
        with self._lock:
            pending = self._pending.get(where)
            if pending is None or pending.draft != draft or self._has_run_out(pending):
                pending = self._signed(draft, builder)
                _put(self._pending, where, pending)
            try:
                bundle = self._upstream.countersign(pending.envelope, pending.certificate)
            except Conflict:
                # Its answer was lost, and the certificate that it was signed with ran out.
                bundle = self._find(where) or b""
            said, index = read_provenance(bundle) if bundle else (None, 0)
            if said is None or not _is_same(said, pending.provenance):  # 5
                raise Conflict(
                    f"expected no other aggregate of step {where.step} of run {where.run_id}, there is one",
                    reason="aggregate-recorded",
                )
            _put(self._known, where, said.as_input(log_index=index))
            del self._pending[where]
            return bundle

    def _has_run_out(self, pending: _Pending) -> bool:
        return self._leaf.current().certificate != pending.certificate

    def _signed(self, draft: AggregateDraft, builder: SpiffeId) -> _Pending:
        provenance = self._initial(draft, builder) if draft.is_initial else self._round(draft, builder)
        leaf = self._leaf.current()
        envelope = SignedEnvelope.sign(provenance.to_payload(), signer=leaf.signer).to_json()  # 4
        return _Pending(draft, provenance, envelope, leaf.certificate)

    def _initial(self, draft: AggregateDraft, builder: SpiffeId) -> Provenance:
        now = self._clock.now()
        return Provenance(
            build_type=BuildType.INITIAL_MODEL,
            domain=builder.domain,
            run_id=draft.run_id,
            step=draft.step,
            round=draft.round,
            phase=Phase.TRAIN,
            tensors=draft.tensors,
            model=draft.model,
            app=draft.app,
            builder=builder,
            previous=self._aggregate_of(draft.tensors),
            updates=(),
            sealed=None,
            started_at=now,
            finished_at=now,
        )

    def _round(self, draft: AggregateDraft, builder: SpiffeId) -> Provenance:
        facts = self._upstream.describe_round(draft.run_id, draft.step)  # 1
        if draft.previous_step is None:
            raise Malformed("expected the step of the aggregate before, got none")
        previous = self._step(StepOfRun(draft.run_id, draft.previous_step))
        return Provenance(
            build_type=BuildType.FEDERATED_ROUND,
            domain=builder.domain,
            run_id=draft.run_id,
            step=draft.step,
            round=facts.round,
            phase=Phase.TRAIN,
            tensors=draft.tensors,  # 3
            model=draft.model,
            app=draft.app,
            builder=builder,
            previous=previous,
            updates=_updates(draft, facts),
            sealed=SealedIn(facts.epoch, facts.receipt, facts.log_index),
            started_at=facts.sealed_at,
            finished_at=max(facts.sealed_at, self._clock.now()),
            trained_from=None if facts.trained_from == previous.model else facts.trained_from,
        )

    def _step(self, where: StepOfRun) -> ModelInput:  # 2
        known = self._known.get(where)
        if known is not None:
            return known
        found = self._newest(where)
        if found is None:
            raise NotFound(
                f"expected step {where.step} of run {where.run_id} to have a recorded aggregate, it has none",
                reason="lineage-incomplete",
            )
        return found[0].as_input(log_index=found[1])

    def _aggregate_of(self, tensors: Digest) -> ModelInput | None:
        """The aggregate that an initial model is. Of one that began a run itself, what that came from."""
        found = self._newest(tensors)
        if found is None:
            return None
        said, index = found
        return said.previous if said.is_initial else said.as_input(log_index=index)

    def _newest(self, query: Digest | StepOfRun) -> tuple[Provenance, int] | None:
        bundle = self._find(query)
        return None if bundle is None else read_provenance(bundle)

    def _find(self, query: Digest | StepOfRun) -> bytes | None:
        try:
            return next(iter(self._upstream.find_lineage(query)), None)
        except NotFound:
            return None


def read_provenance(bundle: bytes) -> tuple[Provenance, int]:
    """What a bundle from the coordinator states, and where it stands in the log.

    Parsed, not verified: it came over a channel that our roots authenticated.
    """
    parsed = SigstoreBundle.parse(bundle)
    if not parsed.entries:
        raise Malformed("expected a log entry in the coordinator's bundle, got none")
    return Provenance.from_payload(parsed.envelope.payload), parsed.entries[0].index


def _put(table: OrderedDict[StepOfRun, _T], where: StepOfRun, value: _T) -> None:
    table[where] = value
    while len(table) > _REMEMBERED:
        table.popitem(last=False)


def _updates(draft: AggregateDraft, facts: RoundFacts) -> tuple[UpdateInput, ...]:
    weights = dict(draft.weights)
    return tuple(
        UpdateInput.of(contribution, examples=weights.get(contribution.participant))
        for contribution in facts.contributions
    )


def _is_same(one: Provenance, other: Provenance) -> bool:
    """Whether two statements differ in nothing but when they were made."""
    return replace(one, started_at=other.started_at, finished_at=other.finished_at) == other
