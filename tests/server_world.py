"""A real coordinator on real sockets, and the people who call it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509

from fltrust.client import CoordinatorClient, Credentials, enroll
from fltrust.client.channel import coordinator_of, open_channel
from fltrust.clock import SystemClock
from fltrust.coordinator.authority import Authority, AuthoritySettings
from fltrust.coordinator.ca import CurrentCa
from fltrust.coordinator.identity import IdentityKeeper
from fltrust.coordinator.notary import scratch_notary
from fltrust.coordinator.serve import BackgroundServer
from fltrust.coordinator.server import CoordinatorServer
from fltrust.coordinator.serving import ServerSettings
from fltrust.enrollment.approvals import ApprovalPolicy
from fltrust.enrollment.challenge import node_key_challenge
from fltrust.enrollment.ports import EvidenceChecker
from fltrust.enrollment.types import EnrollRequest, Issued, JoinToken, JoinTokenEvidence
from fltrust.identity import Name, Role, SpiffeId, TrustDomain
from fltrust.keys import FileSigner, generate, spki_der
from fltrust.pki import (
    Draft,
    Issuer,
    TrustBundle,
    chain_to_pem,
    create_csr,
    create_issuing,
    create_root,
    make_bundle,
)
from fltrust.revocation.events import RevocationReason, TrustEvent
from fltrust.revocation.ports import RevocationTarget
from fltrust.storage import open_store

DOMAIN = TrustDomain("hospitals.example")


@dataclass(frozen=True)
class Authorities:
    """The CA of one domain."""

    bundle: TrustBundle
    issuer: Issuer
    root_signer: FileSigner | None = None

    @classmethod
    def make(cls, domain: TrustDomain = DOMAIN) -> Authorities:
        now, root_signer, issuing_signer = SystemClock().now(), generate(), generate()
        root = create_root(domain, signer=root_signer, now=now)
        issuing = create_issuing(
            root=root, root_signer=root_signer, public_key=issuing_signer.public_key, now=now
        )
        bundle = make_bundle(domain, [root])
        return cls(bundle, Issuer(certificate=issuing, signer=issuing_signer), root_signer)

    def next_issuer(self) -> Issuer:
        """Another issuing CA under the same root, that nobody uses yet."""
        assert self.root_signer is not None
        signer = generate()
        certificate = create_issuing(
            root=self.bundle.roots[0],
            root_signer=self.root_signer,
            public_key=signer.public_key,
            now=SystemClock().now(),
        )
        return Issuer(certificate=certificate, signer=signer)

    def credentials(
        self, who: SpiffeId, *, now: datetime | None = None, lifetime: timedelta | None = None
    ) -> Credentials:
        """A certificate straight from the CA, that no enrollment record knows of."""
        signer = generate()
        draft = Draft.of(who, signer.public_key, now=now or SystemClock().now(), lifetime=lifetime)
        leaf = self.issuer.redeem(draft)
        return Credentials(chain_to_pem([leaf, self.issuer.certificate]), signer.to_pem(None), self.bundle)


@dataclass
class Person:
    """An enrolled identity, with what it calls with."""

    spiffe_id: SpiffeId
    credentials: Credentials
    client: CoordinatorClient = field(repr=False)
    node: FileSigner | None = None

    @property
    def target(self) -> RevocationTarget:
        assert self.spiffe_id.name is not None
        return RevocationTarget(name=(self.spiffe_id.role, self.spiffe_id.name))

    def use(self, credentials: Credentials) -> None:
        """From now on call with these."""
        self.credentials = credentials

    def renew(self) -> Credentials:
        signer = generate()
        issued = self.client.renew(create_csr(signer))
        return credentials_of(issued, signer)


class ServedWorld:
    """One coordinator that listens on loopback, an operator, and whoever joins."""

    def __init__(
        self,
        url: str,
        *,
        settings: ServerSettings | None = None,
        lifetimes: dict[Role, timedelta] | None = None,
        ca: Authorities | None = None,
        checkers: Sequence[EvidenceChecker] = (),
        approvals: ApprovalPolicy | None = None,
    ) -> None:
        self.url = url
        self.approvals = approvals or ApprovalPolicy()
        self.clock = SystemClock()
        self.ca = ca or Authorities.make()
        self.settings = settings or ServerSettings(rate=10_000, burst=10_000, bootstrap_burst=10_000)
        self.lifetimes = lifetimes or {}
        self.checkers = checkers
        self.in_force = CurrentCa(self.ca.issuer, self.ca.bundle)
        self.notary = scratch_notary(self.in_force, clock=self.clock)
        self._clients: list[CoordinatorClient] = []
        self.start()
        name = Name("root")
        signer, issued = self.authority.bootstrap_operator(name)
        self.operator = self._person(issued, signer)

    def start(self) -> None:
        self.store = open_store(self.url)
        self.keeper = IdentityKeeper(
            self.in_force,
            clock=self.clock,
            lifetime=self.lifetimes.get(Role.COORDINATOR),
            dns_names=("localhost",),  # for clients of other makes, which look for the host they dialled
        )
        identity = self.keeper.current
        self.authority = Authority(
            store=self.store,
            ca=self.in_force,
            signer=identity.signer,
            chain=identity.chain_der,
            notary=self.notary,
            clock=self.clock,
            checkers=self.checkers,
            settings=AuthoritySettings(
                domain=DOMAIN,
                bootstrap="localhost:1",
                address="localhost:2",
                lifetimes=self.lifetimes,
                approvals=self.approvals,
            ),
        )
        self.server = CoordinatorServer(self.authority, self.keeper, settings=self.settings)
        self.background = BackgroundServer(self.server)
        self.background.start()
        self.address, self.bootstrap = self.server.address, self.server.bootstrap_address

    def stop(self) -> None:
        self.background.stop()
        self.store.close()

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self.stop()

    def token(self, name: str, role: Role = Role.PARTICIPANT, **options: Any) -> JoinToken:
        """A token whose addresses are those that were really taken."""
        token = self.operator.client.create_token(role, Name(name), ttl=timedelta(minutes=15), **options)
        return replace(token, bootstrap=self.bootstrap, address=self.address)

    def join(self, name: str, role: Role = Role.PARTICIPANT, **options: Any) -> Person:
        """The whole way over the wire: token, request, certificate."""
        signer = generate()
        node = generate() if role is Role.PARTICIPANT else None
        token = self.token(name, role, **options)
        issued = enroll(token, request(token, signer, node))
        return self._person(issued, signer, node)

    def revoke(self, person: Person) -> TrustEvent:
        (event,) = self.operator.client.revoke(person.target, reason=RevocationReason.KEY_COMPROMISE)
        return event

    def channel(self, credentials: Credentials) -> grpc.Channel:
        return open_channel(self.address, credentials, expect=coordinator_of(DOMAIN))

    def client(self, provider: Callable[[], Credentials], **options: Any) -> CoordinatorClient:
        client = CoordinatorClient(self.address, provider, DOMAIN, **options)
        self._clients.append(client)
        return client

    def _person(self, issued: Issued, signer: FileSigner, node: FileSigner | None = None) -> Person:
        person: Person
        client = self.client(lambda: person.credentials)
        person = Person(issued.spiffe_id, credentials_of(issued, signer), client, node)
        return person


def credentials_of(issued: Issued, signer: FileSigner) -> Credentials:
    chain = [x509.load_der_x509_certificate(der) for der in issued.chain_der]
    return Credentials(chain_to_pem(chain), signer.to_pem(None), issued.bundle)


def request(token: JoinToken, signer: FileSigner, node: FileSigner | None) -> EnrollRequest:
    """What a site sends."""
    csr, evidence = create_csr(signer), JoinTokenEvidence(token.secret)
    if node is None:
        return EnrollRequest(evidence, csr)
    proof = node.sign(node_key_challenge(csr, evidence))
    return EnrollRequest(evidence, csr, spki_der(node.public_key), proof)


@contextmanager
def served(folder: Path, **options: Any) -> Iterator[ServedWorld]:
    world = ServedWorld(f"sqlite:///{folder / 'coordinator.sqlite'}", **options)
    try:
        yield world
    finally:
        world.close()


class Collector:
    """Reads a watch on a thread until it ends; keeps what came and how it ended."""

    def __init__(self, items: Iterator[Any]) -> None:
        self.items: list[Any] = []
        self.error: BaseException | None = None
        self._source = items
        self._came = threading.Condition()
        self._has_ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait_for(self, ready: Callable[[Collector], bool], timeout: float = 30.0) -> bool:
        with self._came:
            return self._came.wait_for(lambda: ready(self), timeout)

    def ended(self, timeout: float = 30.0) -> bool:
        return self.wait_for(lambda c: c._has_ended, timeout)

    @property
    def events(self) -> list[TrustEvent]:
        return [item for item in self.items if isinstance(item, TrustEvent)]

    @property
    def epochs(self) -> list[int]:
        return [int(event.epoch) for event in self.events]

    def close(self) -> None:
        self._source.close()  # type: ignore[attr-defined]
        self._thread.join(10)

    def _run(self) -> None:
        try:
            for item in self._source:
                with self._came:
                    self.items.append(item)
                    self._came.notify_all()
        except Exception as error:
            self.error = error
        with self._came:
            self._has_ended = True
            self._came.notify_all()
