"""A real coordinator on two real ports in this process, and sites that join it with tokens."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from fltrust.agent.join import join
from fltrust.agent.session import connect
from fltrust.agent.state import AgentRecord, AgentState, StateDraft, state_folder
from fltrust.client import CoordinatorClient
from fltrust.clock import SystemClock
from fltrust.coordinator.authority import Authority, AuthoritySettings
from fltrust.coordinator.ca import CurrentCa
from fltrust.coordinator.identity import IdentityKeeper
from fltrust.coordinator.notary import scratch_notary
from fltrust.coordinator.serve import BackgroundServer
from fltrust.coordinator.server import CoordinatorServer
from fltrust.coordinator.serving import ServerSettings
from fltrust.enrollment.ports import EvidenceChecker
from fltrust.identity import Name, Role, TrustDomain
from fltrust.keys import generate
from fltrust.pki import Issuer, create_issuing, create_root, make_bundle
from fltrust.storage import open_store

DOMAIN = TrustDomain("hospitals.example")


class Federation:
    """One trust domain; `stop` and `start` are an outage of its coordinator."""

    def __init__(
        self,
        folder: Path,
        lifetimes: dict[Role, timedelta] | None = None,
        checkers: Sequence[EvidenceChecker] = (),
    ) -> None:
        self.home = folder / "home"
        self.clock = SystemClock()
        now = datetime.now(UTC)
        root_signer, issuing_signer = generate(), generate()
        self.root_signer = root_signer
        root = create_root(DOMAIN, signer=root_signer, now=now)
        issuing = create_issuing(
            root=root, root_signer=root_signer, public_key=issuing_signer.public_key, now=now
        )
        self.bundle = make_bundle(DOMAIN, [root])
        self.issuer = Issuer(certificate=issuing, signer=issuing_signer)
        self.store = open_store(f"sqlite:///{folder}/coordinator.db")
        self.ports = ServerSettings(bootstrap=free_address(), address=free_address(), heartbeat=0.5)
        self.settings = AuthoritySettings(
            domain=DOMAIN,
            bootstrap=self.ports.bootstrap,
            address=self.ports.address,
            lifetimes=lifetimes or {},
        )
        in_force = CurrentCa(self.issuer, self.bundle)
        self.keeper = IdentityKeeper(in_force, clock=self.clock)
        identity = self.keeper.current
        self.authority = Authority(
            store=self.store,
            ca=in_force,
            signer=identity.signer,
            chain=identity.chain_der,
            notary=scratch_notary(in_force, clock=self.clock),
            clock=self.clock,
            settings=self.settings,
            checkers=checkers,
        )
        self.start()
        self.operator = self._first_operator()

    def start(self) -> None:
        self.server = BackgroundServer(CoordinatorServer(self.authority, self.keeper, settings=self.ports))
        self.server.start()

    def stop(self) -> None:
        self.server.stop()

    def close(self) -> None:
        self.stop()
        self.store.close()

    def join(self, name: str, role: Role = Role.PARTICIPANT, *, replace: bool = False) -> AgentState:
        with self.as_operator() as client:
            token = client.create_token(role, Name(name), ttl=timedelta(minutes=5), replace=replace)
        return join(token, home=self.home)

    @contextmanager
    def as_operator(self) -> Iterator[CoordinatorClient]:
        with connect(self.operator.folder) as (client, _):
            yield client

    def _first_operator(self) -> AgentState:
        signer, issued = self.authority.bootstrap_operator(Name("admin"))
        record = AgentRecord(issued.spiffe_id, self.settings.address, self.settings.bootstrap, None)
        target = state_folder(issued.spiffe_id, home=self.home)
        with StateDraft(target.parent) as draft:
            return draft.finish(
                target,
                record,
                signer=signer,
                chain=[x509.load_der_x509_certificate(der) for der in issued.chain_der],
                bundle=issued.bundle,
                passphrase=None,
                replace=False,
            )


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def eventually(holds: Callable[[], bool], *, seconds: float = 30.0) -> None:
    """Wait until it holds; fails after a long time, so that a slow machine is no failure."""
    import time

    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came to hold"
        time.sleep(0.02)
