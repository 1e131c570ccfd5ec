"""A guest in another domain's rounds: whom its agent believes, and what it keeps of the host."""

from __future__ import annotations

import ssl
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.agent.credentials import CredentialStore
from fltrust.agent.foreign import ForeignBundles
from fltrust.agent.hosting import HostedCredentials, HostRecord, find_host
from fltrust.agent.ports import AgentIdentity
from fltrust.clock import SystemClock
from fltrust.enrollment.foreign import BundleProfile, ForeignDomain
from fltrust.errors import Conflict, CoordinatorUnavailable, Malformed, NotFound, Refused
from fltrust.flower.roots import LiveVerifier
from fltrust.identity import Name, Role, TrustDomain
from fltrust.pki import TrustBundle, make_bundle
from fltrust.revocation.events import EventKind, FeedHeartbeat, TrustEvent
from fltrust.revocation.view import TrustView
from fltrust.testing import scratch_identity
from fltrust.testing.identities import ScratchCa
from fltrust.wire.federation import ShownDomain, domain_from_pb, domain_to_pb

HOST = TrustDomain("hospitals.example")
CLINIC = TrustDomain("clinic.example")


class Desk:
    """The guest's own coordinator."""

    def __init__(self, *records: ForeignDomain) -> None:
        self.records = records
        self.is_away = False

    def list_foreign(self) -> tuple[ShownDomain, ...]:
        if self.is_away:
            raise CoordinatorUnavailable("away")
        return tuple(ShownDomain(record, False) for record in self.records)


def _record(bundle: TrustBundle, **changes: object) -> ForeignDomain:
    record = ForeignDomain(
        bundle=bundle,
        address="127.0.0.1:9444",
        endpoint_url="https://127.0.0.1/spiffe/bundle",
        profile=BundleProfile.HTTPS_SPIFFE,
        endpoint_spiffe_id=f"spiffe://{bundle.domain}/coordinator",
    )
    return replace(record, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def host() -> ScratchCa:
    return ScratchCa.make(HOST)


@pytest.fixture(scope="module")
def newer(host: ScratchCa) -> TrustBundle:
    return make_bundle(HOST, (*host.bundle.roots, *ScratchCa.make(HOST).bundle.roots), sequence=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "state"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture(scope="module")
def store() -> CredentialStore:
    return CredentialStore(scratch_identity("ward-1", ca=ScratchCa.make(CLINIC)).credentials)


def test_the_host_is_who_our_own_coordinator_says_and_is_kept_for_when_that_is_away(
    host: ScratchCa, folder: Path
) -> None:
    desk = Desk(_record(host.bundle))
    found = find_host(HOST, folder=folder, desk=desk)
    assert (found.address, found.bundle) == ("127.0.0.1:9444", host.bundle)
    desk.is_away = True
    assert find_host(HOST, folder=folder, desk=desk) == found


def test_without_its_coordinator_s_word_a_guest_goes_nowhere(host: ScratchCa, folder: Path) -> None:
    ended = Desk(_record(host.bundle, has_ended=True))
    for desk in (Desk(), ended, Desk(_record(ScratchCa.make("lab.example").bundle))):
        with pytest.raises(NotFound, match="does not lend this participant"):
            find_host(HOST, folder=folder, desk=desk)
    away = Desk()
    away.is_away = True
    with pytest.raises(CoordinatorUnavailable):
        find_host(HOST, folder=folder, desk=away)


def test_an_older_bundle_of_the_host_s_replaces_none(
    host: ScratchCa, newer: TrustBundle, folder: Path
) -> None:
    find_host(HOST, folder=folder, desk=Desk(_record(newer)))
    assert find_host(HOST, folder=folder, desk=Desk(_record(host.bundle))).bundle == newer
    assert find_host(HOST, folder=folder, desk=Desk(_record(host.bundle))).bundle == newer


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"version":2}', b'{"version":1,"address":1,"bundle":""}']
)
def test_what_is_kept_of_a_host_is_read_strictly(folder: Path, data: bytes) -> None:
    path = folder / "host-hospitals.example.json"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(Malformed):
        HostRecord.load(path)


def test_what_others_may_read_of_a_host_is_refused(host: ScratchCa, folder: Path) -> None:
    path = folder / "host-hospitals.example.json"
    HostRecord("127.0.0.1:1", host.bundle).save(path)
    path.chmod(0o644)
    with pytest.raises(Refused):
        HostRecord.load(path)


def test_to_the_host_we_show_our_own_certificate_and_trust_its_roots_alone(
    host: ScratchCa, newer: TrustBundle, store: CredentialStore, folder: Path
) -> None:
    hosted = HostedCredentials(store, HostRecord("127.0.0.1:1", host.bundle), folder=folder)
    pair = hosted.current
    assert (pair.certificate, pair.bundle) == (store.current.certificate, host.bundle)
    assert pair.key_pem == store.current.key_pem
    context = hosted.ssl_client_context()
    assert context.get_ca_certs(binary_form=True) == [_der(root) for root in host.bundle.roots]
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert not hosted.ssl_client_context(check_name=False).check_hostname
    assert hosted.take_bundle(newer)
    assert len(hosted.ssl_client_context().get_ca_certs(binary_form=True)) == 2
    assert HostRecord.load(folder / "host-hospitals.example.json").bundle == newer


def test_no_older_bundle_and_no_other_domain_s_becomes_the_host_s(
    host: ScratchCa, newer: TrustBundle, store: CredentialStore, folder: Path
) -> None:
    hosted = HostedCredentials(store, HostRecord("127.0.0.1:1", newer), folder=folder)
    other = make_bundle(CLINIC, ScratchCa.make(CLINIC).bundle.roots, sequence=9)
    assert not hosted.take_bundle(host.bundle)
    assert not hosted.take_bundle(other)
    assert hosted.bundle == newer


def test_only_participants_are_guests_and_nobody_is_its_own_domain_s(
    host: ScratchCa, store: CredentialStore, folder: Path
) -> None:
    aggregator = CredentialStore(
        scratch_identity("main", Role.AGGREGATOR, ca=ScratchCa.make(CLINIC)).credentials
    )
    with pytest.raises(Conflict):
        HostedCredentials(aggregator, HostRecord("127.0.0.1:1", host.bundle), folder=folder)
    with pytest.raises(Conflict):
        HostedCredentials(store, HostRecord("127.0.0.1:1", store.current.bundle), folder=folder)


# --- what an aggregator knows of foreign roots


class Feed:
    def __init__(self) -> None:
        self.view = TrustView(SystemClock())
        self.view.feed(FeedHeartbeat(self.view.epoch, SystemClock().now()))

    def tell(self, bundle: TrustBundle) -> None:
        self.view.feed(
            TrustEvent(
                self.view.epoch.next(),
                EventKind.BUNDLE_CHANGED,
                SystemClock().now(),
                domain=bundle.domain,
                sequence=bundle.sequence,
            )
        )


def test_foreign_bundles_are_asked_for_when_the_feed_tells_and_never_set_back(
    host: ScratchCa, newer: TrustBundle
) -> None:
    changes: list[tuple[TrustBundle, ...]] = []
    desk = Desk(_record(newer), _record(ScratchCa.make(CLINIC).bundle))
    bundles = ForeignBundles(desk, home=CLINIC, view=Feed().view, on_change=changes.append)
    bundles.refresh()
    assert bundles.current == (newer,)
    desk.records = (_record(host.bundle),)
    bundles.refresh()
    assert bundles.current == (newer,)
    desk.records = (_record(host.bundle, has_ended=True),)
    bundles.refresh()
    assert bundles.current == ()
    assert changes == [(newer,), ()]


def test_a_run_takes_up_a_foreign_domain_that_joins_while_it_goes_on(
    host: ScratchCa, newer: TrustBundle
) -> None:
    feed, known = Feed(), ScratchCa.make(CLINIC).bundle
    main = scratch_identity("main", Role.AGGREGATOR, ca=ScratchCa.make("lab.example"))

    class Agent:
        foreign: tuple[TrustBundle, ...] = (known,)
        asked = 0

        def identity(self) -> AgentIdentity:
            self.asked += 1
            return AgentIdentity(main.spiffe_id, main.credentials.bundle, None, self.foreign)

    agent = Agent()
    live = LiveVerifier(agent, feed.view)
    first = live()
    assert live() is first
    assert agent.asked == 1
    feed.tell(host.bundle)
    assert live() is first  # the agent does not have it yet: asked again until it has
    agent.foreign = (known, host.bundle)
    second = live()
    assert second is not first
    asked = agent.asked
    assert live() is second
    assert agent.asked == asked
    feed.tell(newer)
    agent.foreign = (known, newer)
    assert live() is not second


def test_a_foreign_domain_crosses_the_wire_and_who_is_lent_is_told_to_operators_alone(
    host: ScratchCa,
) -> None:
    record = _record(host.bundle, lent=frozenset({Name("ward-1")}))
    told = domain_from_pb(domain_to_pb(record, is_held=True, with_lent=True))
    assert told == ShownDomain(record, True)
    untold = domain_from_pb(domain_to_pb(record, is_held=False, with_lent=False))
    assert untold == ShownDomain(replace(record, lent=frozenset()), False)


def _der(root: x509.Certificate) -> bytes:
    return root.public_bytes(Encoding.DER)
