"""`LocalFederation`: a whole trusted federation in this process, for unit tests and notebooks."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, Strategy

from fltrust.agent.aggregator import AggregatorCore
from fltrust.agent.credentials import CredentialStore
from fltrust.agent.feedlog import FeedLog
from fltrust.agent.journal import Journal
from fltrust.agent.participant import ParticipantCore
from fltrust.artifacts.ports import StepOfRun
from fltrust.artifacts.signing import SignedModel, sign
from fltrust.clock import Clock
from fltrust.enrollment.second import SecondPair, no_second_key
from fltrust.errors import FltrustError, NotFound
from fltrust.flower.agents import forget_in_process, register_in_process
from fltrust.flower.records import save_model
from fltrust.flower.replay import Replay, Replayed, signing_at
from fltrust.identity import NodeId, Role, RunId, SpiffeId
from fltrust.keys.recovery import RecoveryKey
from fltrust.pki.types import TrustBundle
from fltrust.revocation.events import RevocationReason, TrustEvent
from fltrust.revocation.view import ReachPolicy, TrustView
from fltrust.rounds.types import RoundRecord
from fltrust.testing.coordinator import ScratchCoordinator
from fltrust.testing.identities import DOMAIN, ScratchIdentity
from fltrust.testing.local_grid import LocalGrid, wire_copy
from fltrust.updates import Verifier

NodeApp = Callable[[Message, Context], Message]
Mischief = Callable[[Message, Message], Message | None]
"""(instruction, reply) → what leaves the node instead, after signing. None: nothing ever does."""


class LocalParticipant:
    """One site: its identity, its own agent with its own view and journal, and its app."""

    def __init__(
        self,
        identity: ScratchIdentity,
        *,
        run_id: RunId,
        app: NodeApp,
        context: Context,
        view: TrustView,
        journal: Journal,
        clock: Clock,
        host: Callable[[], TrustBundle] | None = None,
        home: TrustView | None = None,
    ) -> None:
        self.identity = identity
        self.context = context
        self.view = view
        self.agent = ParticipantCore(
            CredentialStore(identity.credentials),
            node_key=identity.node_key,
            view=view,
            journal=journal,
            clock=clock,
            host=host,
            home=home,
            second=self._second,
        )
        self.mischief: Mischief | None = None
        """What this site does to its replies after they were signed; see `fltrust.testing.mischief`."""
        self.before: Callable[[Message], None] | None = None
        """Called in the node's thread with each instruction, before the app sees it."""
        self.received: list[Message] = []
        """Every instruction that reached this site, as it came."""
        self.sent: list[Message] = []
        """Every reply that left it, before any mischief."""
        self.second: SecondPair | None = None
        """What this site signs with a second time (ML-DSA-65), where its aggregator asks for both."""
        self._app = app
        self._journal = journal
        register_in_process(run_id, self.node_id, self.agent)

    @property
    def name(self) -> str:
        return self.identity.name

    @property
    def spiffe_id(self) -> SpiffeId:
        return self.identity.spiffe_id

    @property
    def node_id(self) -> NodeId:
        return NodeId(self.context.node_id)

    def handle(self, message: Message) -> Message | None:
        """Answer one instruction, as the SuperNode's app process would."""
        instruction = wire_copy(message)
        self.received.append(instruction)
        if self.before is not None:
            self.before(message)
        reply = self._app(message, self.context)
        self.sent.append(wire_copy(reply))
        return reply if self.mischief is None else self.mischief(instruction, reply)

    def close(self) -> None:
        self._journal.close()

    def _second(self) -> SecondPair:
        if self.second is None:
            raise no_second_key(self.spiffe_id)
        return self.second


class LocalFederation:
    """A coordinator, an aggregator and participants in this process, joined by a `LocalGrid`.

        with LocalFederation(client_app, participants=4) as federation:
            strategy = TrustedStrategy(FedAvg())
            result = strategy.start(federation.grid, initial_arrays=arrays, num_rounds=5)
            federation.revoke("site-1")

    Everything that decides is real (CA, enrollment, database, agents, signatures, seals); only
    sockets and processes are left out. `participants` is a number (site-0, site-1, …) or names;
    `apps` gives single participants another app, `node_config` more of a node config than
    ``partition-id`` and ``num-partitions``. `journals` keeps each site's memory in files in a folder.
    One federation is one run: several strategies may run in it one after the other. `guests` are participants
    of other domains, by name, with their own coordinators: they are federated with, and admitted.
    """

    def __init__(
        self,
        client_app: ClientApp,
        participants: int | Iterable[str] = 4,
        *,
        apps: Mapping[str, ClientApp] | None = None,
        node_config: Mapping[str, Mapping[str, Any]] | None = None,
        run_config: Mapping[str, Any] | None = None,
        domain: str = DOMAIN,
        clock: Clock | None = None,
        reach: ReachPolicy | None = None,
        url: str = "sqlite://",
        journals: Path | None = None,
        coordinator: ScratchCoordinator | None = None,
        run_id: int | None = None,
        guests: Mapping[str, ScratchCoordinator] | None = None,
    ) -> None:
        names = (
            [f"site-{i}" for i in range(participants)]
            if isinstance(participants, int)
            else list(participants)
        )
        self._owns_coordinator = coordinator is None
        self.coordinator = coordinator or ScratchCoordinator(domain, clock=clock, url=url)
        self.clock = self.coordinator.clock
        self.run_id = RunId(secrets.randbits(63) if run_id is None else run_id)
        self._reach = reach
        self.aggregator = self.coordinator.enroll(f"main-{int(self.run_id):x}", Role.AGGREGATOR)
        self._signer: ScratchIdentity | None = None
        self._guests = dict(guests or {})
        self._invite()
        names += [name for name in self._guests if name not in names]
        self._participants: dict[str, LocalParticipant] = {}
        for index, name in enumerate(names):
            config = {
                "partition-id": index,
                "num-partitions": len(names),
                **(node_config or {}).get(name, {}),
            }
            self._participants[name] = self._participant(
                name, (apps or {}).get(name, client_app), config, run_config or {}, journals
            )
        self.grid = LocalGrid(
            self.run_id,
            {p.node_id: (p.identity.node_key_pem, p.handle) for p in self._participants.values()},
            aggregator_agent=self._aggregator_agent(),
            clock=self.clock,
        )

    @property
    def participants(self) -> tuple[LocalParticipant, ...]:
        return tuple(self._participants.values())

    def __getitem__(self, name: str) -> LocalParticipant:
        """The participant of this name; `NotFound` if there is none."""
        try:
            return self._participants[name]
        except KeyError:
            raise NotFound(f"expected one of {', '.join(self._participants)}, got {name!r}") from None

    def revoke(
        self,
        name: str,
        *,
        reason: RevocationReason = RevocationReason.KEY_COMPROMISE,
        compromised_since: datetime | None = None,
    ) -> tuple[TrustEvent, ...]:
        """Revoke a participant, in the middle of a round if you like: call it from any thread.

        When it returns the revocation is durable, and no later seal admits this participant. With
        `compromised_since`, what was made of its updates from then on is marked tainted.
        """
        return self.coordinator.revoke(name, reason=reason, compromised_since=compromised_since)

    def hold(self, name: str) -> tuple[TrustEvent, ...]:
        return self.coordinator.hold(name)

    def release(self, name: str) -> tuple[TrustEvent, ...]:
        return self.coordinator.release(name)

    def sign(
        self, path: str | Path, arrays: ArrayRecord | None = None, *, run: StepOfRun | None = None
    ) -> SignedModel:
        """Sign a model as this federation's release signer (`signer`); signature and lineage lie beside it.

        `arrays` are first written to `path` as a safetensors file. A model that holds an aggregate of
        this run gets its lineage; `run` says where another one comes from.
        """
        if arrays is not None:
            save_model(arrays, path)
        session = self.coordinator.session(self._release_signer())
        return sign(path, desk=session, lineage=session, run=run)

    @property
    def signer(self) -> SpiffeId:
        """Who signs in `sign`: the identity to verify against."""
        return self._release_signer().spiffe_id

    def trust_file(self) -> bytes:
        """Everything that offline verification needs, as of now: `fltrust.artifacts.verify(…, trust=…)`."""
        return self.coordinator.as_operator().trust_file()

    def replay(
        self,
        without: str,
        *,
        retained: Path,
        key: RecoveryKey,
        strategy: Callable[[], Strategy] = FedAvg,
        since: datetime | None = None,
        all_rounds: bool = False,
    ) -> Replayed:
        """Make this run's model again without a participant; the release signer signs its lineage.

        `retained` is the folder of `TrustPolicy.retention`, `strategy` makes the run's own; see
        `fltrust.flower.replay`. `sign` the arrays afterwards.
        """
        session = self.coordinator.session(self._release_signer())
        return Replay(
            run_id=self.run_id,
            without=self[without].spiffe_id,
            record=self.coordinator.as_operator(),
            verifier=Verifier(
                self.coordinator.bundle, foreign=self.coordinator.authority.federation.of_record()
            ),
            folder=retained,
            key=key,
            builder=self.signer,
            new_run_id=RunId(secrets.randbits(63)),
            now=self.clock.now,
            make_strategy=strategy,
            since=since,
            sign=signing_at(session, clock=self.clock),
            all_rounds=all_rounds,
        ).run()

    def rounds(self) -> tuple[RoundRecord, ...]:
        """The written record of this run, with evidence."""
        return self.coordinator.rounds(self.run_id)

    def close(self) -> None:
        """Close the run and end every thread. Idempotent."""
        with suppress(FltrustError):
            self.grid.aggregator_agent.close_run(self.run_id)
        self.grid.close()
        forget_in_process(self.run_id)
        for participant in self._participants.values():
            participant.close()
        if self._owns_coordinator:
            self.coordinator.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _release_signer(self) -> ScratchIdentity:
        if self._signer is None:
            self._signer = self.coordinator.enroll(f"release-{int(self.run_id):x}", Role.SIGNER)
        return self._signer

    def _invite(self) -> None:
        """Federate with the domain of every guest, once each."""
        for theirs in dict.fromkeys(self._guests.values()):
            lent = [name for name, coordinator in self._guests.items() if coordinator is theirs]
            self.coordinator.federate(theirs, lent_by_them=lent)

    def _participant(
        self,
        name: str,
        app: NodeApp,
        node_config: dict[str, Any],
        run_config: Mapping[str, Any],
        journals: Path | None,
    ) -> LocalParticipant:
        theirs = self._guests.get(name)
        identity = (theirs or self.coordinator).enroll(name)
        view = TrustView(self.clock, self._reach)
        home: TrustView | None = None
        if theirs is not None:
            self.coordinator.admit(identity)
            home = TrustView(self.clock, self._reach)
            theirs.keep_current(home, reader=identity.spiffe_id)
        self.coordinator.keep_current(view, reader=identity.spiffe_id)
        context = Context(
            run_id=int(self.run_id),
            node_id=secrets.randbits(63) + 2,  # 1 is the SuperLink's own
            node_config=node_config,
            state=RecordDict(),
            run_config=dict(run_config),
        )
        return LocalParticipant(
            identity,
            run_id=self.run_id,
            app=app,
            context=context,
            view=view,
            journal=Journal(None if journals is None else journals / f"{name}.sqlite"),
            clock=self.clock,
            host=None if theirs is None else lambda: self.coordinator.bundle,
            home=home,
        )

    def _aggregator_agent(self) -> AggregatorCore:
        view = TrustView(self.clock, self._reach)
        log = FeedLog(view, clock=self.clock)
        self.coordinator.keep_current(view, reader=self.aggregator.spiffe_id)
        return AggregatorCore(
            CredentialStore(self.aggregator.credentials),
            view=view,
            log=log,
            coordinator=self.coordinator.link(self.aggregator),
            clock=self.clock,
            foreign=lambda: self.coordinator.authority.federation.trust().foreign,
        )
