"""A real coordinator without its network: the same authority, database and rules, in this process."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

from fltrust.agent.credentials import Credentials
from fltrust.artifacts.ports import EntryKind, RoundFacts, StepOfRun
from fltrust.clock import Clock, SystemClock
from fltrust.coordinator.authority import Authority, AuthoritySettings, Caller, Session
from fltrust.coordinator.ca import CurrentCa
from fltrust.coordinator.identity import issue_identity
from fltrust.coordinator.notary import NotaryKeys, scratch_notary
from fltrust.coordinator.public_names import PublicNaming
from fltrust.enrollment.challenge import node_key_challenge
from fltrust.enrollment.types import EnrollRequest, JoinTokenEvidence
from fltrust.errors import CoordinatorUnavailable
from fltrust.identity import Digest, Epoch, Name, Role, RunId, SpiffeId
from fltrust.keys import generate, spki_der
from fltrust.pki import TrustBundle, create_csr
from fltrust.revocation.events import FeedHeartbeat, FeedItem, RevocationReason, TrustEvent
from fltrust.revocation.ports import RevocationTarget
from fltrust.revocation.view import TrustView
from fltrust.rounds.types import Candidate, CohortMember, Opened, RoundKey, RoundRecord
from fltrust.storage import open_store
from fltrust.testing import federating
from fltrust.testing.federating import Tie
from fltrust.testing.identities import DOMAIN, ScratchCa, ScratchIdentity

_TOKEN_LIFE = timedelta(minutes=15)
_BATCH = 256
_BEAT = 5.0  # seconds between two heartbeats to the views that are kept current


class ScratchCoordinator:
    """An `Authority` over SQLite (in memory, unless `url` names a database) with a CA of its own.

    Views given to `keep_current` hear of every event before the call that caused it returns: a
    revocation that was acknowledged is known everywhere. `is_reachable = False` plays an outage: calls
    raise `CoordinatorUnavailable`, and views grow old.
    """

    def __init__(
        self,
        domain: str = DOMAIN,
        *,
        clock: Clock | None = None,
        url: str = "sqlite://",
        ca: ScratchCa | None = None,
        notary: NotaryKeys | None = None,
        pseudonym_key: bytes | None = None,
    ) -> None:
        self.clock = clock or SystemClock()
        self.ca = ca or ScratchCa.make(domain, now=self.clock.now())
        in_force = CurrentCa(self.ca.issuer, self.ca.bundle)
        self.notary = notary or scratch_notary(in_force, clock=self.clock)
        self.is_reachable = True
        self._store = open_store(url)
        identity = issue_identity(self.ca.issuer, self.ca.bundle, clock=self.clock)
        self.authority = Authority(
            store=self._store,
            ca=in_force,
            signer=identity.signer,
            chain=identity.chain_der,
            notary=self.notary,
            names=PublicNaming(pseudonym_key),
            clock=self.clock,
            settings=AuthoritySettings(
                domain=self.ca.bundle.domain, bootstrap="scratch:1", address="scratch:2"
            ),
        )
        signer, issued = self.authority.bootstrap_operator(Name("scratch"), replace=True)
        self.operator = ScratchIdentity(
            Credentials.verified(
                signer, issued.chain_der, bundle=self.bundle, expect=issued.spiffe_id, clock=self.clock
            )
        )
        self._pumps: list[_Pump] = []
        self._ties: list[Tie] = []
        self._pumping = threading.RLock()
        self._closing = threading.Event()
        self._unsubscribe = self.authority.subscribe(lambda _epoch: self.beat())
        self._heart = threading.Thread(target=self._beat_on, name="fltrust-scratch-heart", daemon=True)
        self._heart.start()

    @property
    def bundle(self) -> TrustBundle:
        """The roots of this coordinator's domain."""
        return self.ca.bundle

    def enroll(self, name: str, role: Role = Role.PARTICIPANT, *, replace: bool = False) -> ScratchIdentity:
        """Enroll `name` the whole way: join token, proof of possession, certificate. `replace` takes
        over a name that is enrolled or revoked."""
        token = self.as_operator().create_token(role, Name(name), ttl=_TOKEN_LIFE, replace=replace)
        signer = generate()
        node = generate() if role is Role.PARTICIPANT else None
        csr, evidence = create_csr(signer), JoinTokenEvidence(token.secret)
        if node is None:
            request = EnrollRequest(evidence, csr)
        else:
            proof = node.sign(node_key_challenge(csr, evidence))
            request = EnrollRequest(evidence, csr, spki_der(node.public_key), proof)
        issued = self.authority.enroll(request)
        return ScratchIdentity(
            Credentials.verified(
                signer, issued.chain_der, bundle=self.bundle, expect=issued.spiffe_id, clock=self.clock
            ),
            node,
        )

    def session(self, identity: ScratchIdentity) -> Session:
        """What this identity may ask, as over the network."""
        return self.authority.session(Caller.of(identity.credentials.certificate))

    def as_operator(self) -> Session:
        """A session of the operator: revoke, hold, release, tokens, enrollments, the written record."""
        return self.session(self.operator)

    def revoke(
        self,
        name: str,
        *,
        reason: RevocationReason = RevocationReason.KEY_COMPROMISE,
        compromised_since: datetime | None = None,
    ) -> tuple[TrustEvent, ...]:
        """Revoke a participant. When this returns, it is durable and every kept view knows."""
        return self.as_operator().revoke(
            _participant(name), reason=reason, compromised_since=compromised_since
        )

    def hold(self, name: str) -> tuple[TrustEvent, ...]:
        """Put a participant on hold."""
        return self.as_operator().hold(_participant(name), reason=RevocationReason.UNSPECIFIED)

    def release(self, name: str) -> tuple[TrustEvent, ...]:
        """End a participant's hold."""
        return self.as_operator().release(_participant(name))

    def rounds(self, run_id: RunId | None = None) -> tuple[RoundRecord, ...]:
        """The written record, with evidence."""
        session = self.as_operator()
        return tuple(
            session.get_round(record.key.run_id, record.key.step) for record in session.list_rounds(run_id)
        )

    def federate(self, theirs: ScratchCoordinator, *, lent_by_them: Iterable[str] = ()) -> Tie:
        """Federate with another domain, on both sides, and follow its feed from now on: `lent_by_them` are
        names of its participants that may take part here, once they are admitted (`admit`)."""
        federating.agree(theirs, self.bundle.domain, self.bundle, lends=lent_by_them)
        federating.agree(self, theirs.bundle.domain, theirs.bundle)
        tie = federating.Tie(self, theirs)
        self._ties.append(tie)
        return tie

    def admit(self, guest: ScratchIdentity) -> None:
        """Admit a participant of a domain that this one is federated with."""
        federating.admit(self, guest)
        for tie in self._ties:
            tie.settle()

    def link(self, identity: ScratchIdentity) -> Link:
        """The calls of an aggregator's agent to this coordinator, which fail while it is not reachable."""
        return Link(self, identity)

    def keep_current(self, view: TrustView, *, reader: SpiffeId | None) -> None:
        """Feed `view` what `reader` may read, from now on and at once."""
        with self._pumping:
            self._pumps.append(_Pump(view, reader))
        self.beat()

    def beat(self) -> None:
        """Bring every kept view up to date, and tell it that it is."""
        if self._closing.is_set() or not self.is_reachable:
            return
        with self._pumping:
            for pump in self._pumps:
                pump.run(self.authority, self.clock.now())

    def close(self) -> None:
        """Let go of the database. Idempotent."""
        self._closing.set()
        for tie in self._ties:
            tie.close()
        self._unsubscribe()
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _beat_on(self) -> None:
        while not self._closing.wait(_BEAT):
            self.beat()


class Link:
    """An `AggregatorUpstream` and `TrustFeed` as one caller has them over a network that may be down."""

    def __init__(self, coordinator: ScratchCoordinator, identity: ScratchIdentity) -> None:
        self._coordinator = coordinator
        self._identity = identity

    def open_round(self, key: RoundKey, cohort: tuple[CohortMember, ...]) -> Opened:
        return self._session().open_round(key, cohort)

    def seal_round(
        self, key: RoundKey, candidates: tuple[Candidate, ...], refused: tuple[tuple[SpiffeId, str], ...]
    ) -> bytes:
        return self._session().seal_round(key, candidates, refused)

    def close_run(self, run_id: RunId) -> None:
        self._session().close_run(run_id)

    def watch(self, after: Epoch) -> Iterator[FeedItem]:
        return self._session().watch(after)

    def certify_signer(self, csr_der: bytes) -> tuple[bytes, ...]:
        return self._session().certify_signer(csr_der)

    def countersign(
        self, envelope: bytes, certificate: bytes, *, entry_kind: EntryKind = EntryKind.HASHEDREKORD
    ) -> bytes:
        return self._session().countersign(envelope, certificate, entry_kind=entry_kind)

    def describe_round(self, run_id: RunId, step: int) -> RoundFacts:
        return self._session().describe_round(run_id, step)

    def find_lineage(self, query: Digest | StepOfRun) -> Iterator[bytes]:
        return self._session().find_lineage(query)

    def _session(self) -> Session:
        if not self._coordinator.is_reachable:
            raise CoordinatorUnavailable("the scratch coordinator plays an outage")
        return self._coordinator.session(self._identity)


class _Pump:
    """Moves events from the table into one view; one thread at a time."""

    def __init__(self, view: TrustView, reader: SpiffeId | None) -> None:
        self._view = view
        self._reader = reader

    def run(self, authority: Authority, now: datetime) -> None:
        while events := authority.events(self._view.epoch, _BATCH, reader=self._reader):
            for event in events:
                self._view.feed(event)
        self._view.feed(FeedHeartbeat(self._view.epoch, now))


def _participant(name: str) -> RevocationTarget:
    return RevocationTarget(name=(Role.PARTICIPANT, Name(name)))
