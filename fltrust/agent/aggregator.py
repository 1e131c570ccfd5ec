"""The aggregator's side: instructions signed for its app, and its calls to the coordinator carried."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta

from fltrust.agent.counters import RefusalCounter
from fltrust.agent.credentials import Credentials, CredentialStore
from fltrust.agent.feedlog import FeedLog
from fltrust.agent.ports import AgentIdentity, AggregateDraft, AggregatorUpstream, InstructionDraft
from fltrust.agent.recorder import AggregateRecorder
from fltrust.clock import Clock
from fltrust.errors import Malformed, Oversized, Revoked
from fltrust.identity import Epoch, RunId, SpiffeId
from fltrust.pki.types import TrustBundle
from fltrust.revocation.events import FeedItem
from fltrust.revocation.view import TrustView
from fltrust.rounds.types import Candidate, CohortMember, Opened, RoundKey
from fltrust.updates.receipt import MAX_COHORT
from fltrust.updates.signing import sign_statement
from fltrust.updates.statement import InstructionStatement

_log = logging.getLogger("fltrust.agent")

MAX_LIFETIME = timedelta(days=7)
"""How long an instruction may be in force."""


class AggregatorCore:
    """Implements `AggregatorAgent`. To sign instructions:

    1. This identity is not known to be revoked, the trust view is as fresh as the policy asks, and
       it shows this aggregator's own certificate in good standing.
    2. There are at most `MAX_COHORT` drafts, each in force for no more than `MAX_LIFETIME`.
    3. Each becomes a statement that names who, when and the certificate, under a fresh id.

    Whether a participant stands well is decided when the round opens and when it is sealed: an
    instruction for one that was revoked a moment ago must not stop those for the others.
    """

    def __init__(
        self,
        credentials: CredentialStore,
        *,
        view: TrustView,
        log: FeedLog,
        coordinator: AggregatorUpstream,
        clock: Clock,
        foreign: Callable[[], tuple[TrustBundle, ...]] = tuple,
        new_id: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        self._credentials = credentials
        self._view = view
        self._feed = log
        self._coordinator = coordinator
        self._clock = clock
        self._new_id = new_id
        self._foreign = foreign
        self._recorder = AggregateRecorder(coordinator, clock=clock)
        self._halted: Revoked | None = None
        self._refusals = RefusalCounter()

    def identity(self) -> AgentIdentity:
        current = self._credentials.current
        return AgentIdentity(current.spiffe_id, current.bundle, None, self._foreign())

    def halt(self, because: Revoked) -> None:
        """Refuse everything from now on: this identity was told that it is revoked."""
        self._halted = because

    @property
    def refusals(self) -> Mapping[str, int]:
        return self._refusals.snapshot()

    @property
    def log(self) -> FeedLog:
        return self._feed

    def sign_instructions(self, drafts: tuple[InstructionDraft, ...]) -> tuple[bytes, ...]:
        with self._refusals.counting():
            current = self._in_good_standing()  # 1
            if len(drafts) > MAX_COHORT:  # 2
                raise Oversized(f"expected at most {MAX_COHORT} instructions at once, got {len(drafts)}")
            return tuple(self._sign(draft, current) for draft in drafts)

    def open_round(self, key: RoundKey, cohort: tuple[CohortMember, ...]) -> Opened:
        with self._refusals.counting():
            self._require_not_halted()
            return self._coordinator.open_round(key, cohort)

    def seal_round(
        self, key: RoundKey, candidates: tuple[Candidate, ...], refused: tuple[tuple[SpiffeId, str], ...]
    ) -> bytes:
        with self._refusals.counting():
            self._require_not_halted()
            return self._coordinator.seal_round(key, candidates, refused)

    def close_run(self, run_id: RunId) -> None:
        with self._refusals.counting():
            self._require_not_halted()
            self._coordinator.close_run(run_id)

    def record_aggregate(self, draft: AggregateDraft) -> bytes:
        """Step 1 as for instructions; then `AggregateRecorder.record`."""
        with self._refusals.counting():
            current = self._in_good_standing()
            return self._recorder.record(draft, builder=current.spiffe_id)

    def watch(self, after: Epoch) -> Iterator[FeedItem]:
        return self._feed.watch(after)

    def _sign(self, draft: InstructionDraft, current: Credentials) -> bytes:
        if not timedelta(0) < draft.lifetime <= MAX_LIFETIME:
            raise Malformed(f"expected a lifetime of at most {MAX_LIFETIME}, got {draft.lifetime}")
        now = self._clock.now()
        statement = InstructionStatement(  # 3
            domain=current.spiffe_id.domain,
            run_id=draft.run_id,
            round=draft.round,
            phase=draft.phase,
            step=draft.step,
            instruction_id=self._new_id(),
            participant=draft.participant,
            node_id=draft.node_id,
            node_key=draft.node_key,
            message_type=draft.message_type,
            content=draft.content,
            model=draft.model,
            certificate=current.certificate.fingerprint,
            aggregator=current.spiffe_id,
            issued_at=now,
            expires_at=now + draft.lifetime,
        )
        return sign_statement(statement, signer=current.signer, chain=current.chain_der).to_bytes()

    def _in_good_standing(self) -> Credentials:
        self._require_not_halted()
        current = self._credentials.current
        if not self._view.require_fresh():
            _log.warning("signing on a trust view that is %s old, as the policy allows", self._view.age())
        self._view.judge(current.certificate)
        return current

    def _require_not_halted(self) -> None:
        if self._halted is not None:
            raise Revoked(self._halted.message, reason=self._halted.reason, hint=self._halted.hint)
