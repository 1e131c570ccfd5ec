"""Federating with another domain, and what that domain's coordinator and CA cannot do here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from fltrust.coordinator.federation.desk import CALLING_ROLES
from fltrust.coordinator.federation.follower import ForeignFollower
from fltrust.coordinator.federation.keeper import take_bundle
from fltrust.coordinator.federation.relay import TheirWord, take_over
from fltrust.coordinator.gate import Gate
from fltrust.coordinator.ledger import Work
from fltrust.coordinator.session import Caller
from fltrust.enrollment.foreign import BundleProfile, ForeignDomain, ForeignParticipant
from fltrust.enrollment.types import Issued
from fltrust.errors import (
    CertificateRefused,
    Conflict,
    FltrustError,
    Malformed,
    NotFound,
    PermissionDenied,
    Refusal,
    Revoked,
)
from fltrust.identity import Epoch, KeyId, Name, Role, Serial, SpiffeId, TrustDomain
from fltrust.keys import generate, spki_der
from fltrust.pki import create_csr, make_bundle
from fltrust.pki.federated import verify_among
from fltrust.pki.leaf import ca_key_id
from fltrust.revocation.events import EventKind, RevocationReason, TrustEvent
from fltrust.revocation.ports import RevocationTarget
from fltrust.revocation.state import Standing
from fltrust.testing import FakeClock, ScratchCoordinator, scratch_identity
from fltrust.testing.federating import Tie, admit, agree, end, propose
from fltrust.testing.identities import ScratchCa, ScratchIdentity

HOST, CLINIC = TrustDomain("hospitals.example"), TrustDomain("clinic.example")
WARD = SpiffeId.of(CLINIC, Role.PARTICIPANT, "ward-1")
THEIRS = SpiffeId.of(CLINIC, Role.COORDINATOR)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def host(clock: FakeClock) -> Iterator[ScratchCoordinator]:
    with ScratchCoordinator(HOST, clock=clock) as made:
        yield made


@pytest.fixture
def clinic(clock: FakeClock) -> Iterator[ScratchCoordinator]:
    with ScratchCoordinator(CLINIC, clock=clock) as made:
        yield made


@pytest.fixture
def ward(host: ScratchCoordinator, clinic: ScratchCoordinator) -> ScratchIdentity:
    """A participant of the clinic's that is admitted at the host's."""
    made = clinic.enroll("ward-1")
    host.federate(clinic, lent_by_them=["ward-1"])
    host.admit(made)
    return made


def _standing(host: ScratchCoordinator, who: SpiffeId = WARD) -> Standing:
    return host.authority.ledger.identities()[who].standing


def _events(host: ScratchCoordinator) -> tuple[TrustEvent, ...]:
    return host.authority.events(Epoch(0), 1_000, reader=None)


def _judge(host: ScratchCoordinator, who: ScratchIdentity) -> str | None:
    try:
        certificate = verify_among(
            who.credentials.chain_der,
            trust=host.authority.federation.trust(),
            at=host.clock.now(),
            foreign_roles=CALLING_ROLES,
        )
        host.authority.judge(certificate)
    except FltrustError as error:
        return error.reason
    return None


# --- who is let in


def test_federating_lets_nobody_in(host: ScratchCoordinator, clinic: ScratchCoordinator) -> None:
    ward = clinic.enroll("ward-1")
    assert _judge(host, ward) == Refusal.WRONG_DOMAIN
    host.federate(clinic, lent_by_them=["ward-1"])
    assert _judge(host, ward) == Refusal.UNKNOWN_IDENTITY
    host.admit(ward)
    assert _judge(host, ward) is None


def test_until_their_feed_is_heard_the_domain_is_on_hold(
    host: ScratchCoordinator, clinic: ScratchCoordinator
) -> None:
    ward = clinic.enroll("ward-1")
    agree(clinic, HOST, host.bundle, lends=["ward-1"])
    agree(host, CLINIC, clinic.bundle)
    admit(host, ward)
    assert _judge(host, ward) == Refusal.HELD
    Tie(host, clinic)
    assert _judge(host, ward) is None


def test_who_is_admitted_and_not_lent_is_on_hold_until_it_is(
    host: ScratchCoordinator, clinic: ScratchCoordinator
) -> None:
    ward = clinic.enroll("ward-1")
    host.federate(clinic)
    host.admit(ward)
    assert _standing(host) is Standing.HELD
    agree(clinic, HOST, host.bundle, lends=["ward-1"])
    Tie(host, clinic)  # watched anew, their feed shows it
    assert _standing(host) is Standing.ACTIVE


def test_an_admitted_participant_stands_in_our_feed_and_record_with_its_node_key(
    host: ScratchCoordinator, ward: ScratchIdentity
) -> None:
    (enrolled,) = [e for e in _events(host) if e.kind is EventKind.ENROLLED and e.subject == WARD]
    assert enrolled.node_key == ward.node_key_der
    record = host.as_operator().get_enrollment(WARD)
    assert (record.evidence, record.enrolled_by) == ("federation", host.operator.spiffe_id)


@pytest.mark.parametrize("role", [r for r in Role if r not in (*CALLING_ROLES, Role.SERVER)])
def test_no_other_role_of_a_foreign_domain_is_anybody_here(
    host: ScratchCoordinator, clinic: ScratchCoordinator, ward: ScratchIdentity, role: Role
) -> None:
    eve = scratch_identity("eve", role, ca=clinic.ca, clock=host.clock)
    assert _judge(host, eve) == Refusal.WRONG_ROLE
    with pytest.raises(CertificateRefused):
        host.authority.federation.judge(eve.credentials.certificate)


def test_only_participants_are_admitted(host: ScratchCoordinator, ward: ScratchIdentity) -> None:
    for role in (Role.AGGREGATOR, Role.OPERATOR, Role.SIGNER, Role.WORKLOAD):
        parameters = {"participant": str(replace(WARD, role=role)), "nodeKey": ""}
        with pytest.raises(Malformed):
            propose(host, "admit-foreign", parameters)


def test_a_foreign_participant_watches_and_does_nothing_else(
    host: ScratchCoordinator, ward: ScratchIdentity
) -> None:
    session = host.authority.session(Caller.of(ward.credentials.certificate))
    assert session.bundle() == host.bundle
    session.watch(Epoch(0))
    csr = create_csr(generate())
    for call in (
        lambda: session.renew(csr),
        lambda: session.certify_workload(csr),
        session.list_foreign,
        session.list_enrollments,
        session.trust_file,
        lambda: session.create_token(Role.OPERATOR, Name("x"), ttl=timedelta(minutes=5)),
        lambda: session.revoke(RevocationTarget(foreign=WARD), reason=RevocationReason.UNSPECIFIED),
    ):
        with pytest.raises(PermissionDenied):
            call()


def test_a_foreign_certificate_renews_nothing_here_by_any_way(
    host: ScratchCoordinator, ward: ScratchIdentity
) -> None:
    def renew() -> Issued:
        return host.authority.enroller.renew(ward.credentials.certificate, create_csr(generate()))

    with pytest.raises(FltrustError):
        renew()


def test_what_a_guest_reads_of_our_feed_names_no_other_site_and_no_operator(
    host: ScratchCoordinator, ward: ScratchIdentity
) -> None:
    host.enroll("site-a")
    main = host.enroll("main", Role.AGGREGATOR)
    read = host.authority.events(Epoch(0), 1_000, reader=WARD)
    assert {event.subject for event in read if event.subject is not None} == {WARD, main.spiffe_id}
    assert [event.epoch for event in read] == [event.epoch for event in _events(host)]


def test_their_coordinator_reads_what_is_about_those_that_are_lent_to_it(
    host: ScratchCoordinator, clinic: ScratchCoordinator, ward: ScratchIdentity
) -> None:
    clinic.enroll("ward-2")
    clinic.revoke("ward-1")
    read = clinic.authority.events(Epoch(0), 1_000, reader=SpiffeId.of(HOST, Role.COORDINATOR))
    assert {event.subject for event in read if event.subject is not None} == {WARD}
    assert {event.actor for event in read} == {None}
    assert {e.kind for e in read} <= {EventKind.ENROLLED, EventKind.REVOKED, EventKind.REDACTED}
    stranger = SpiffeId.of("nobody.example", Role.COORDINATOR)
    assert {e.kind for e in clinic.authority.events(Epoch(0), 1_000, reader=stranger)} == {EventKind.REDACTED}


# --- what is agreed


def test_our_own_domain_is_not_federated_with(host: ScratchCoordinator) -> None:
    with pytest.raises(Malformed, match="another trust domain than our own"):
        agree(host, HOST, ScratchCa.make(HOST).bundle)


def test_a_root_of_ours_or_of_a_third_domain_is_no_root_of_theirs(
    host: ScratchCoordinator, clinic: ScratchCoordinator, ward: ScratchIdentity
) -> None:
    lab = TrustDomain("lab.example")
    for root in (*host.bundle.roots, *clinic.bundle.roots):
        with pytest.raises((Conflict, Malformed)):
            agree(host, lab, make_bundle(lab, [root]))


def test_a_root_that_says_it_is_for_another_domain_is_refused(host: ScratchCoordinator) -> None:
    other = ScratchCa.make("other.example").bundle.roots
    with pytest.raises(Malformed, match="one says that it is for"):
        agree(host, CLINIC, make_bundle(CLINIC, other))


def test_a_bundle_is_never_set_back_nor_changed_under_one_sequence(
    host: ScratchCoordinator, clinic: ScratchCoordinator, ward: ScratchIdentity
) -> None:
    roots = (*clinic.bundle.roots, *ScratchCa.make(CLINIC).bundle.roots)
    newer = make_bundle(CLINIC, roots, sequence=5)
    assert take_bundle(host.authority, newer)
    assert not take_bundle(host.authority, newer)
    assert host.authority.federation.trust().foreign == (newer,)
    for bundle in (clinic.bundle, make_bundle(CLINIC, roots[:1], sequence=5)):
        with pytest.raises(Conflict) as refused:
            take_bundle(host.authority, bundle)
        assert refused.value.reason in ("bundle-downgrade", "bundle-equivocation")
        with pytest.raises(Conflict):
            agree(host, CLINIC, bundle)
    kinds = [(e.kind, e.sequence) for e in _events(host) if e.kind is EventKind.BUNDLE_CHANGED]
    assert kinds == [(EventKind.BUNDLE_CHANGED, 1), (EventKind.BUNDLE_CHANGED, 5)]


def test_a_bundle_that_is_fetched_takes_no_root_of_ours(
    host: ScratchCoordinator, clinic: ScratchCoordinator, ward: ScratchIdentity
) -> None:
    forged = make_bundle(CLINIC, (*clinic.bundle.roots, *host.bundle.roots), sequence=9)
    with pytest.raises(Conflict, match="one is a root of"):
        take_bundle(host.authority, forged)


def test_a_new_root_of_theirs_vouches_at_once(
    host: ScratchCoordinator, clinic: ScratchCoordinator, ward: ScratchIdentity
) -> None:
    fresh = ScratchCa.make(CLINIC, now=host.clock.now())
    under_it = scratch_identity("ward-1", ca=fresh, clock=host.clock)
    assert _judge(host, under_it) == Refusal.CERTIFICATE_PATH
    take_bundle(host.authority, make_bundle(CLINIC, (*clinic.bundle.roots, *fresh.bundle.roots), sequence=2))
    assert _judge(host, under_it) is None


def test_once_it_is_ended_nobody_of_the_domain_is_let_in(
    host: ScratchCoordinator, clinic: ScratchCoordinator, ward: ScratchIdentity
) -> None:
    end(host, CLINIC)
    assert _standing(host) is Standing.HELD
    assert _judge(host, ward) == Refusal.WRONG_DOMAIN
    assert host.authority.federation.trust().foreign == ()
    assert host.authority.federation.of_record() == (clinic.bundle,)
    for tie in host._ties:
        tie.settle()  # their feed releases nobody from that
    assert _standing(host) is Standing.HELD
    with pytest.raises(NotFound):
        end(host, CLINIC)
    with pytest.raises(NotFound):
        admit(host, clinic.enroll("ward-2"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("endpointUrl", "http://bundle.clinic.example/"),
        ("endpointUrl", "https://user:pass@bundle.clinic.example/"),
        ("endpointUrl", "https:///spiffe/bundle"),
        ("endpointUrl", "https://bundle.clinic.example/#x"),
        ("endpointUrl", "https://bundle.clinic.example:99999/"),
        ("endpointUrl", "https://bundle.clinic.example/\r\nx: y"),
        ("profile", "http"),
        ("profile", "https_web"),
        ("endpointSpiffeId", None),
        ("endpointSpiffeId", "spiffe://hospitals.example/coordinator"),
        ("endpointSpiffeId", "https://clinic.example/coordinator"),
        ("address", "clinic.example"),
        ("address", "clinic.example:1/x"),
        ("lent", ["b", "a"]),
        ("lent", ["a", "a"]),
        ("lent", ["A"]),
        ("bundle", "e30="),
        ("bundle", ""),
        ("extra", 1),
    ],
)
def test_what_is_agreed_is_read_strictly(field: str, value: object) -> None:
    good = ForeignDomain(
        bundle=ScratchCa.make(CLINIC).bundle,
        address="coordinator.clinic.example:9444",
        endpoint_url="https://bundle.clinic.example/spiffe/bundle",
        profile=BundleProfile.HTTPS_SPIFFE,
        endpoint_spiffe_id="spiffe://clinic.example/coordinator",
        lent=frozenset({Name("a"), Name("b")}),
    )
    assert ForeignDomain.from_parameters(good.to_parameters()) == good
    with pytest.raises(FltrustError):
        ForeignDomain.from_parameters({**good.to_parameters(), field: value})


def test_a_node_key_that_somebody_has_is_taken_from_nobody(
    host: ScratchCoordinator, clinic: ScratchCoordinator, ward: ScratchIdentity
) -> None:
    site = host.enroll("site-a")
    for taken in (site.node_key_der, ward.node_key_der):
        who = SpiffeId.of(CLINIC, Role.PARTICIPANT, "ward-2")
        with pytest.raises(Conflict, match="node key"):
            propose(host, "admit-foreign", ForeignParticipant(who, taken).to_parameters())


@pytest.mark.parametrize("key", [b"", b"\x30\x00", b"x" * 600])
def test_a_node_key_is_read_strictly(key: bytes) -> None:
    with pytest.raises(Malformed):
        ForeignParticipant(WARD, key)


# --- what their feed says


def test_what_is_revoked_there_is_revoked_here_and_taints_what_it_should(
    host: ScratchCoordinator, clinic: ScratchCoordinator, ward: ScratchIdentity
) -> None:
    since = host.clock.now() - timedelta(minutes=1)
    clinic.revoke("ward-1", compromised_since=since)
    assert _standing(host) is Standing.REVOKED
    (event,) = [e for e in _events(host) if e.kind is EventKind.REVOKED and e.identity_wide]
    assert (event.subject, event.actor, event.compromised_since) == (WARD, THEIRS, since)
    assert _judge(host, ward) == Refusal.REVOKED


def test_being_enrolled_anew_there_revives_nothing_here(
    host: ScratchCoordinator, clinic: ScratchCoordinator, ward: ScratchIdentity
) -> None:
    clinic.revoke("ward-1")
    again = clinic.enroll("ward-1", replace=True)
    assert _standing(host) is Standing.REVOKED
    assert _judge(host, again) == Refusal.REVOKED
    with pytest.raises(Conflict, match="before it was revoked"):
        propose(host, "admit-foreign", ForeignParticipant(WARD, ward.node_key_der).to_parameters())
    host.admit(again)
    assert _judge(host, again) is None
    assert _judge(host, ward) == Refusal.REVOKED


def test_being_replaced_there_revokes_here_even_if_the_host_was_away(
    host: ScratchCoordinator, clinic: ScratchCoordinator, ward: ScratchIdentity
) -> None:
    host._ties[0].close()
    clinic.revoke("ward-1")
    again = clinic.enroll("ward-1", replace=True)
    assert _judge(host, again) is None  # not heard yet: for 30 s at the most
    Tie(host, clinic)
    assert _judge(host, again) == Refusal.REVOKED


def test_what_was_revoked_here_is_released_by_nothing_that_they_say(
    host: ScratchCoordinator, clinic: ScratchCoordinator, ward: ScratchIdentity
) -> None:
    host.as_operator().revoke(RevocationTarget(foreign=WARD), reason=RevocationReason.KEY_COMPROMISE)
    clinic.hold("ward-1")
    clinic.release("ward-1")
    assert _standing(host) is Standing.REVOKED


def test_a_hold_of_ours_outlasts_theirs_and_theirs_is_not_ours_to_end(
    host: ScratchCoordinator, clinic: ScratchCoordinator, ward: ScratchIdentity
) -> None:
    target, operator = RevocationTarget(foreign=WARD), host.as_operator()
    clinic.hold("ward-1")
    with pytest.raises(Conflict) as refused:
        operator.release(target)
    assert refused.value.reason == "held-at-home"
    operator.hold(target, reason=RevocationReason.UNSPECIFIED)
    clinic.release("ward-1")
    assert _standing(host) is Standing.HELD
    operator.release(target)
    assert _standing(host) is Standing.ACTIVE
    operator.hold(target, reason=RevocationReason.UNSPECIFIED)
    with pytest.raises(Revoked):
        admit(host, ward)


def test_one_certificate_that_is_revoked_there_is_refused_here(
    host: ScratchCoordinator, clinic: ScratchCoordinator, ward: ScratchIdentity
) -> None:
    clinic.as_operator().revoke(
        RevocationTarget(serial=ward.credentials.certificate.serial), reason=RevocationReason.SUPERSEDED
    )
    assert _standing(host) is Standing.ACTIVE
    assert _judge(host, ward) == Refusal.REVOKED


def test_a_ca_that_is_revoked_there_vouches_for_nobody_here(
    host: ScratchCoordinator, clinic: ScratchCoordinator, ward: ScratchIdentity
) -> None:
    issuing = ca_key_id(clinic.ca.issuer.certificate.public_key())
    with clinic.authority.ledger.writing() as work:
        work.emit(EventKind.ISSUER_REVOKED, actor=None, domain=CLINIC, issuer=issuing)
    assert _judge(host, ward) == Refusal.ISSUER_REVOKED


def test_taking_over_again_writes_nothing(
    host: ScratchCoordinator, clinic: ScratchCoordinator, ward: ScratchIdentity
) -> None:
    clinic.hold("ward-1")
    clinic.as_operator().revoke(
        RevocationTarget(serial=ward.credentials.certificate.serial), reason=RevocationReason.SUPERSEDED
    )
    head = host.authority.head
    Tie(host, clinic)
    assert host.authority.head == head


class Liar:
    """A coordinator of a foreign domain that says what it likes."""

    def __init__(self, host: ScratchCoordinator) -> None:
        self._host = host
        self.word = TheirWord(CLINIC)
        self._say(EventKind.ENROLLED, subject=WARD, node_key=None)

    def says(self, kind: EventKind, **fields: object) -> None:
        self._say(kind, **fields)
        with self._host.authority.ledger.writing() as work:
            self._take_over(work)

    def _take_over(self, work: Work) -> None:
        take_over(
            self.word,
            work,
            home=self._host.bundle,
            spread=self._host.authority.desks.taints.spread,
        )

    def _say(self, kind: EventKind, **fields: object) -> None:
        event = TrustEvent(self.word.state.epoch.next(), kind, self._host.clock.now(), **fields)  # type: ignore[arg-type]
        self.word.take(event)


@pytest.fixture
def liar(host: ScratchCoordinator, ward: ScratchIdentity) -> Liar:
    for tie in host._ties:
        tie.close()
    made = Liar(host)
    known = made.word.state.identities[WARD]
    made.word.state.identities[WARD] = replace(known, node_key=ward.node_key)
    return made


def test_a_liar_revokes_none_of_our_certificates_keys_or_cas(host: ScratchCoordinator, liar: Liar) -> None:
    site = host.enroll("site-a")
    certificate = site.credentials.certificate
    head = host.authority.head
    liar.says(EventKind.REVOKED, subject=WARD, serials=(certificate.serial,), keys=(certificate.key_id,))
    for ca in (*host.bundle.roots, host.ca.issuer.certificate):
        liar.says(EventKind.ISSUER_REVOKED, domain=CLINIC, issuer=ca_key_id(ca.public_key()))
        liar.says(EventKind.ISSUER_REVOKED, domain=HOST, issuer=ca_key_id(ca.public_key()))
    assert host.authority.head == head
    host.authority.judge(certificate)
    with host.authority.ledger.reading() as tx:
        assert not tx.statuses.find([certificate.serial])


def test_a_liar_says_nothing_of_identities_of_another_domain(host: ScratchCoordinator, liar: Liar) -> None:
    site = host.enroll("site-a")
    head = host.authority.head
    liar.says(EventKind.ENROLLED, subject=site.spiffe_id)
    liar.says(
        EventKind.REVOKED,
        subject=site.spiffe_id,
        identity_wide=True,
        serials=(Serial(77),),
        keys=(KeyId("ab" * 32),),
    )
    liar.says(EventKind.BUNDLE_CHANGED, domain=HOST, sequence=99)
    assert host.authority.head == head
    assert _standing(host, site.spiffe_id) is Standing.ACTIVE


def test_a_liar_admits_nobody_and_opens_no_run(host: ScratchCoordinator, liar: Liar) -> None:
    head = host.authority.head
    liar.says(EventKind.ENROLLED, subject=SpiffeId.of(CLINIC, Role.PARTICIPANT, "ward-9"), node_key=b"x")
    liar.says(EventKind.ENROLLED, subject=SpiffeId.of(HOST, Role.OPERATOR, "eve"))
    liar.says(EventKind.RUN_OPENED, actor=SpiffeId.of(HOST, Role.AGGREGATOR, "eve"), run_id=7)
    assert host.authority.head == head
    with pytest.raises(NotFound):
        host.as_operator().get_enrollment(SpiffeId.of(CLINIC, Role.PARTICIPANT, "ward-9"))


def test_a_liar_that_bars_a_number_of_a_third_domain_bars_its_own_alone(
    host: ScratchCoordinator, liar: Liar, clock: FakeClock
) -> None:
    with ScratchCoordinator("lab.example", clock=clock) as lab:
        bench = lab.enroll("bench")
        host.federate(lab, lent_by_them=["bench"])
        host.admit(bench)
        certificate = bench.credentials.certificate
        liar.says(EventKind.REVOKED, subject=WARD, serials=(certificate.serial,), keys=(certificate.key_id,))
        liar.says(
            EventKind.ISSUER_REVOKED,
            domain=CLINIC,
            issuer=ca_key_id(lab.ca.issuer.certificate.public_key()),
        )
        assert _judge(host, bench) is None


def test_the_status_of_our_certificates_is_untouched_by_what_is_taken_over(
    host: ScratchCoordinator, clinic: ScratchCoordinator, ward: ScratchIdentity
) -> None:
    issuer = ca_key_id(host.ca.issuer.certificate.public_key())
    before = host.authority.status.complete_crl(issuer).number
    clinic.revoke("ward-1")
    assert host.authority.status.complete_crl(issuer).number >= before
    with host.authority.ledger.reading() as tx:
        assert not tx.statuses.find([ward.credentials.certificate.serial])


def test_a_node_key_of_its_own_is_what_a_site_gives_to_be_admitted() -> None:
    key = spki_der(generate().public_key)
    asked = ForeignParticipant(WARD, key)
    assert ForeignParticipant.from_parameters(asked.to_parameters()) == asked


# --- at the door


def _context(who: ScratchIdentity) -> dict[str, list[bytes]]:
    """What gRPC says of a connection."""
    pem = who.credentials.chain_pem
    leaf = pem.partition(b"-----END CERTIFICATE-----\n")
    return {
        "ssl_tls_version": [b"TLSv1.3"],
        "x509_pem_cert": [leaf[0] + leaf[1]],
        "x509_pem_cert_chain": [pem],
    }


def test_the_gate_names_a_guest_under_its_own_domain_s_roots_and_refuses_every_other_role(
    host: ScratchCoordinator, clinic: ScratchCoordinator, ward: ScratchIdentity
) -> None:
    gate = Gate(host.authority, host.clock)
    assert gate.identify(_context(ward)).spiffe_id == WARD
    eve = scratch_identity("root", Role.OPERATOR, ca=clinic.ca, clock=host.clock)
    with pytest.raises(CertificateRefused) as refused:
        gate.identify(_context(eve))
    assert refused.value.reason == Refusal.WRONG_ROLE
    other = ScratchCa.make(HOST, now=host.clock.now())
    impostor = scratch_identity("root", Role.OPERATOR, ca=other, clock=host.clock)
    with pytest.raises(CertificateRefused) as refused:
        gate.identify(_context(impostor))
    assert refused.value.reason == Refusal.CERTIFICATE_PATH
    end(host, CLINIC)
    with pytest.raises(CertificateRefused) as refused:
        gate.identify(_context(ward))  # also one that it has seen before
    assert refused.value.reason == Refusal.WRONG_DOMAIN


def test_a_guest_has_no_business_on_the_services_port(
    host: ScratchCoordinator, ward: ScratchIdentity
) -> None:
    with pytest.raises(CertificateRefused) as refused:
        Gate(host.authority, host.clock).identify_chain(ward.credentials.chain_der)
    assert refused.value.reason == Refusal.WRONG_DOMAIN


@pytest.mark.parametrize(("ago", "expected"), [(10, None), (40, Refusal.HELD)])
def test_after_a_restart_it_counts_when_the_domain_was_heard_before(
    host: ScratchCoordinator,
    clinic: ScratchCoordinator,
    ward: ScratchIdentity,
    clock: FakeClock,
    ago: int,
    expected: str | None,
) -> None:
    for tie in host._ties:
        tie.close()
    clinic.is_reachable = False
    clock.advance(timedelta(seconds=ago))
    with host.authority.ledger.reading() as tx:
        record = tx.foreign.get(CLINIC)
    assert record is not None
    ForeignFollower(record, ledger=host.authority.ledger, spread=lambda _w, _e: None, clock=clock).settle(
        home=host.bundle
    )
    assert _judge(host, ward) == expected
