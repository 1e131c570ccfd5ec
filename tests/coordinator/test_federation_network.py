"""Two coordinators on real ports: each follows the other and fetches its bundle; guests are let in."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from fltrust.client import CoordinatorClient
from fltrust.client.bundle_endpoint import fetch_bundle
from fltrust.client.foreign import ForeignLink
from fltrust.coordinator.federation.keeper import FederationKeeper, FederationLinks
from fltrust.coordinator.identity import IdentityKeeper
from fltrust.coordinator.serve import BackgroundServer
from fltrust.coordinator.server import CoordinatorServer
from fltrust.coordinator.serving import ServerSettings
from fltrust.enrollment.foreign import FEDERATE, BundleProfile, ForeignDomain
from fltrust.errors import FltrustError, Refused
from fltrust.identity import Epoch, Name, Role, SpiffeId
from fltrust.pki import TrustBundle, make_bundle
from fltrust.revocation.events import EventKind, TrustEvent
from fltrust.revocation.state import Standing
from fltrust.testing import ScratchCoordinator, scratch_identity
from fltrust.testing.federating import admit, end, propose
from fltrust.testing.identities import ScratchCa, ScratchIdentity
from fltrust.wire.tls import Credentials

HOST, CLINIC = "hospitals.example", "clinic.example"
WARD = SpiffeId.of(CLINIC, Role.PARTICIPANT, "ward-1")


class Served:
    """A scratch coordinator with its ports, which follows the domains that it federates with."""

    def __init__(self, domain: str) -> None:
        self.scratch = ScratchCoordinator(domain)
        authority, clock = self.scratch.authority, self.scratch.clock
        keeper = IdentityKeeper(authority.ca, clock=clock)
        settings = ServerSettings(services="127.0.0.1:0", heartbeat=0.2, grace=0.1)
        self._server = CoordinatorServer(authority, keeper, settings=settings)
        self._running = BackgroundServer(self._server)
        self._running.start()
        links = FederationLinks(
            ForeignLink, lambda record, at, roots: fetch_bundle(record, at=at, web_roots=roots)
        )
        self._federation = FederationKeeper(authority, keeper, links, clock=clock)
        self._federation.start()

    @property
    def address(self) -> str:
        return self._server.address

    @property
    def bundle(self) -> TrustBundle:
        return self.scratch.authority.bundle()

    def federate(self, other: Served, *, lends: tuple[str, ...] = ()) -> None:
        record = ForeignDomain(
            bundle=other.scratch.bundle,
            address=other.address,
            endpoint_url=f"https://{other._server.services_address}/spiffe/bundle",
            profile=BundleProfile.HTTPS_SPIFFE,
            endpoint_spiffe_id=f"spiffe://{other.bundle.domain}/coordinator",
            lent=frozenset(map(Name, lends)),
        )
        propose(self.scratch, FEDERATE, record.to_parameters())

    def close(self) -> None:
        self._federation.stop()
        self._running.stop()
        self.scratch.close()


@pytest.fixture
def host() -> Iterator[Served]:
    made = Served(HOST)
    yield made
    made.close()


@pytest.fixture
def clinic() -> Iterator[Served]:
    made = Served(CLINIC)
    yield made
    made.close()


def _client(host: Served, who: ScratchIdentity) -> CoordinatorClient:
    pair = who.credentials
    material = Credentials(pair.chain_pem, pair.key_pem, host.bundle)
    return CoordinatorClient(host.address, lambda: material, host.bundle.domain)


def _eventually(holds: Callable[[], bool]) -> None:
    end_at = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end_at, "it never came to hold"
        time.sleep(0.02)


def _standing(host: Served) -> Standing:
    return host.scratch.authority.ledger.identities()[WARD].standing


def test_a_guest_watches_the_host_until_its_home_says_no_and_nobody_else_gets_in(
    host: Served, clinic: Served
) -> None:
    ward = clinic.scratch.enroll("ward-1")
    clinic.federate(host, lends=("ward-1",))
    host.federate(clinic)
    admit(host.scratch, ward)
    _eventually(lambda: _standing(host) is Standing.ACTIVE)

    with _client(host, ward) as client:
        assert client.get_bundle() == host.bundle  # the roots were taken up by a server that ran already
        seen: list[TrustEvent] = []
        refusals: list[FltrustError] = []

        def watch() -> None:
            try:
                seen.extend(item for item in client.watch(Epoch(0)) if isinstance(item, TrustEvent))
            except FltrustError as error:
                refusals.append(error)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        clinic.scratch.revoke("ward-1")
        thread.join(30)
        assert [error.reason for error in refusals] == ["revoked"]
    assert _standing(host) is Standing.REVOKED

    eve = scratch_identity("root", Role.OPERATOR, ca=clinic.scratch.ca)
    stranger = scratch_identity("ward-1", ca=ScratchCa.make(CLINIC))
    for who in (eve, stranger):
        with _client(host, who) as client, pytest.raises(FltrustError):
            client.list_enrollments()


def test_a_new_root_of_theirs_is_fetched_when_their_feed_tells_of_it(host: Served, clinic: Served) -> None:
    clinic.federate(host)
    host.federate(clinic)
    _eventually(lambda: not host.scratch.authority.ledger.is_domain_held(clinic.bundle.domain))
    newer = make_bundle(
        clinic.bundle.domain, (*clinic.bundle.roots, *ScratchCa.make(CLINIC).bundle.roots), sequence=2
    )
    with clinic.scratch.authority.ledger.writing() as work:
        work.emit(EventKind.BUNDLE_CHANGED, actor=None, domain=newer.domain, sequence=newer.sequence)
    clinic.scratch.authority.ca.replace(bundle=newer)
    _eventually(lambda: host.scratch.authority.federation.trust().foreign == (newer,))


def test_a_federation_that_has_ended_lets_no_watch_go_on(host: Served, clinic: Served) -> None:
    ward = clinic.scratch.enroll("ward-1")
    clinic.federate(host, lends=("ward-1",))
    host.federate(clinic)
    admit(host.scratch, ward)
    _eventually(lambda: _standing(host) is Standing.ACTIVE)
    with _client(host, ward) as client:
        watch = client.watch(Epoch(0))
        next(watch)
        threading.Timer(0.1, lambda: end(host.scratch, clinic.bundle.domain)).start()
        with pytest.raises(Refused):
            list(watch)
