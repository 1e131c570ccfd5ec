"""A small trust domain for the agent's tests: a real CA, a real feed, real statements; no network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.agent.aggregator import AggregatorCore
from fltrust.agent.credentials import Credentials, CredentialStore
from fltrust.agent.feedlog import FeedLog
from fltrust.agent.journal import Journal
from fltrust.agent.participant import ParticipantCore
from fltrust.agent.ports import InstructionDraft, ReceivedInstruction
from fltrust.agent.state import AgentRecord, AgentState, StateDraft
from fltrust.enrollment.challenge import check_node_key_proof
from fltrust.enrollment.second import SecondPair
from fltrust.enrollment.types import EnrollRequest, Issued, JoinToken
from fltrust.errors import CoordinatorUnavailable, Malformed, TokenRefused
from fltrust.identity import Digest, Epoch, KeyId, NodeId, Role, RunId, Serial, SpiffeId, TrustDomain
from fltrust.keys import FileSigner, generate, spki_der
from fltrust.keys.openssh import openssh_public
from fltrust.pki import Draft, Issuer, create_issuing, create_root, make_bundle, parse_csr
from fltrust.revocation import EventKind, FeedHeartbeat, FeedItem, TrustEvent
from fltrust.revocation.view import ReachPolicy, TrustView
from fltrust.rounds.types import Candidate, CohortMember, Opened, RoundKey
from fltrust.updates.digest import CONTENT_ALGORITHM, MODEL_ALGORITHM
from fltrust.updates.statement import Phase

DOMAIN = TrustDomain("hospitals.example")
SITE = SpiffeId.of(DOMAIN, Role.PARTICIPANT, "site-a")
OTHER = SpiffeId.of(DOMAIN, Role.PARTICIPANT, "site-b")
MAIN = SpiffeId.of(DOMAIN, Role.AGGREGATOR, "main")
ADMIN = SpiffeId.of(DOMAIN, Role.OPERATOR, "admin")
START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
RUN = RunId(2**63 + 7)
NODE = NodeId(4711)


def content(seed: int) -> Digest:
    return Digest(CONTENT_ALGORITHM, bytes([seed]) * 32)


def model(seed: int) -> Digest:
    return Digest(MODEL_ALGORITHM, bytes([seed]) * 32)


class FakeClock:
    """A clock that moves when told to."""

    def __init__(self, at: datetime = START) -> None:
        self.at = at
        self.ticks = 1000.0

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.ticks

    def advance(self, by: timedelta) -> None:
        self.at += by
        self.ticks += by.total_seconds()


class World:
    """One trust domain: its CA, its feed and one view of it, fed by hand."""

    def __init__(self, *, at: datetime = START, policy: ReachPolicy | None = None) -> None:
        self.clock = FakeClock(at)
        root_signer, issuing_signer = generate(), generate()
        self.root = create_root(DOMAIN, signer=root_signer, now=at)
        issuing = create_issuing(
            root=self.root, root_signer=root_signer, public_key=issuing_signer.public_key, now=at
        )
        self.issuer = Issuer(certificate=issuing, signer=issuing_signer)
        self.bundle = make_bundle(DOMAIN, [self.root])
        self.view = TrustView(self.clock, policy)
        self.beat()  # from here on, what is said is new
        self.log = FeedLog(self.view, clock=self.clock)
        self.node_keys: dict[SpiffeId, FileSigner] = {}

    def issue(self, who: SpiffeId, signer: FileSigner, lifetime: timedelta | None = None) -> Credentials:
        leaf = self.issuer.redeem(Draft.of(who, signer.public_key, now=self.clock.now(), lifetime=lifetime))
        return Credentials.verified(
            signer,
            (leaf, self.issuer.certificate),
            bundle=self.bundle,
            expect=who,
            clock=self.clock,
        )

    def enroll(self, who: SpiffeId, lifetime: timedelta | None = None) -> CredentialStore:
        """Issue a certificate and say so in the feed."""
        key = self.node_keys.setdefault(who, generate()) if who.role is Role.PARTICIPANT else None
        store = CredentialStore(self.issue(who, generate(), lifetime))
        node_key = None if key is None else spki_der(key.public_key)
        self.say(EventKind.ENROLLED, subject=who, node_key=node_key)
        return store

    def say(self, kind: EventKind, **fields: object) -> TrustEvent:
        event = TrustEvent(
            epoch=self.view.epoch.next(),
            kind=kind,
            at=self.clock.now(),
            **fields,  # type: ignore[arg-type]
        )
        self.view.feed(event)
        return event

    def revoke(self, who: SpiffeId, *serials: Serial) -> TrustEvent:
        return self.say(EventKind.REVOKED, subject=who, identity_wide=not serials, serials=serials)

    def beat(self) -> None:
        self.view.feed(FeedHeartbeat(self.view.epoch, self.clock.now()))

    def node_key(self, who: SpiffeId = SITE) -> KeyId:
        return self.node_keys[who].key_id

    def participant(
        self,
        store: CredentialStore,
        journal: Journal | None = None,
        patience: float = 0.0,
        second: Callable[[], SecondPair] | None = None,
    ) -> ParticipantCore:
        return ParticipantCore(
            store,
            node_key=self.node_key(store.spiffe_id),
            view=self.view,
            journal=journal or Journal(None),
            clock=self.clock,
            patience=patience,
            second=second,
        )

    def aggregator(self, store: CredentialStore) -> AggregatorCore:
        return AggregatorCore(store, view=self.view, log=self.log, coordinator=NoRounds(), clock=self.clock)

    def draft(self, **changes: object) -> InstructionDraft:
        draft = InstructionDraft(
            run_id=RUN,
            round=1,
            phase=Phase.TRAIN,
            step=1,
            participant=SITE,
            node_id=NODE,
            node_key=self.node_key(),
            message_type="train",
            content=content(1),
            model=model(2),
            lifetime=timedelta(hours=1),
        )
        return replace(draft, **changes)  # type: ignore[arg-type]

    def state(self, folder: Path, store: CredentialStore, *, passphrase: bytes | None = None) -> AgentState:
        """The state that joining would have written."""
        current = store.current
        key = self.node_keys.get(store.spiffe_id)
        with StateDraft(folder.parent) as draft:
            if key is not None:
                draft.node_key_path.write_bytes(key.to_openssh())
                draft.node_key_path.chmod(0o600)
                public = draft.node_key_path.with_name("node.key.pub")
                public.write_bytes(openssh_public(key.public_key))
            return draft.finish(
                folder,
                AgentRecord(
                    store.spiffe_id, "127.0.0.1:1", "127.0.0.1:2", None if key is None else key.key_id
                ),
                signer=current.signer,
                chain=current.certificate.chain,
                bundle=current.bundle,
                passphrase=passphrase,
                replace=False,
            )


@dataclass
class Scene:
    """A participant, an aggregator, an open run and one instruction: the start of most tests."""

    world: World
    site: CredentialStore
    main: CredentialStore
    participant: ParticipantCore
    aggregator: AggregatorCore

    def instruction(self, **changes: object) -> ReceivedInstruction:
        """An instruction that the aggregator signed and the app received as it was sent."""
        draft = self.world.draft(**changes)
        (signed,) = self.aggregator.sign_instructions((draft,))
        return ReceivedInstruction(
            signed=signed,
            content=draft.content,
            model=draft.model,
            run_id=draft.run_id,
            node_id=draft.node_id,
            message_type=draft.message_type,
        )


def scene(journal: Journal | None = None, policy: ReachPolicy | None = None, patience: float = 0.0) -> Scene:
    world = World(policy=policy)
    site, main = world.enroll(SITE), world.enroll(MAIN)
    world.say(EventKind.RUN_OPENED, run_id=RUN, actor=MAIN)
    return Scene(world, site, main, world.participant(site, journal, patience), world.aggregator(main))


class NoRounds:
    """A coordinator that keeps no rounds: it says what it was asked, and knows the answers."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def open_round(self, key: RoundKey, cohort: tuple[CohortMember, ...]) -> Opened:
        self.calls.append(("open", key, cohort))
        return Opened(Epoch(5), ((OTHER, "revoked"),))

    def seal_round(
        self, key: RoundKey, candidates: tuple[Candidate, ...], refused: tuple[tuple[SpiffeId, str], ...]
    ) -> bytes:
        self.calls.append(("seal", key, candidates, refused))
        return b"receipt"

    def close_run(self, run_id: RunId) -> None:
        self.calls.append(("close", run_id))


class Registry:
    """The coordinator's side of joining and renewing, with the real CA and no storage."""

    def __init__(self, world: World, role: Role = Role.PARTICIPANT, name: str = "site-a") -> None:
        self.world = world
        self.who = SpiffeId.of(DOMAIN, role, name)
        self.spent = False
        self.lifetime: timedelta | None = None
        self.fail: list[Exception] = []
        self.renewals = 0

    def token(self) -> JoinToken:
        return JoinToken(
            bootstrap="127.0.0.1:1",
            address="127.0.0.1:2",
            root_der=self.world.root.public_bytes(Encoding.DER),
            secret=b"s" * 32,
        )

    def enroll(self, token: JoinToken, request: EnrollRequest) -> Issued:  # noqa: ARG002
        if (request.node_key is not None) != (self.who.role is Role.PARTICIPANT):
            raise Malformed("a node key is a participant's")
        if request.node_key is not None and request.node_key_proof is not None:
            check_node_key_proof(
                node_key=request.node_key,
                proof=request.node_key_proof,
                csr_der=request.csr_der,
                evidence=request.evidence,
            )
        if self.spent:
            raise TokenRefused("the token is used", reason="token-used")
        self.spent = True
        return self._issue(request.csr_der)

    def renew(self, csr_der: bytes) -> Issued:
        if self.fail:
            raise self.fail.pop(0)
        self.renewals += 1
        return self._issue(csr_der)

    def _issue(self, csr_der: bytes) -> Issued:
        leaf = self.world.issuer.redeem(
            Draft.of(self.who, parse_csr(csr_der), now=self.world.clock.now(), lifetime=self.lifetime)
        )
        chain = (leaf, self.world.issuer.certificate)
        return Issued(self.who, tuple(c.public_bytes(Encoding.DER) for c in chain), self.world.bundle)


def unreachable() -> CoordinatorUnavailable:
    return CoordinatorUnavailable("nobody there")


def take(items: Iterator[FeedItem], count: int) -> list[FeedItem]:
    return [next(items) for _ in range(count)]
