from __future__ import annotations

from datetime import timedelta

import pytest
from authority_world import DOMAIN, RUN, Authorities, Exchange, FakeClock, World, receipt_of
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from fltrust.coordinator.ca import CurrentCa
from fltrust.coordinator.identity import IdentityKeeper, issue_identity
from fltrust.errors import CertificateRefused, Conflict, FltrustError
from fltrust.identity import Digest, Role, SpiffeId
from fltrust.keys import generate
from fltrust.rounds.chain import verify_chain


def test_the_identity_serves_tls_and_names_the_coordinator(ca: Authorities) -> None:
    identity = issue_identity(ca.issuer, ca.bundle, clock=FakeClock())
    assert identity.certificate.spiffe_id == SpiffeId.of(DOMAIN, Role.COORDINATOR)
    leaf, issuing = x509.load_pem_x509_certificates(identity.chain_pem)
    assert issuing == ca.issuer.certificate
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [f"coordinator.{DOMAIN}"]
    key = load_pem_private_key(identity.key_pem(), None)
    assert key.public_key() == leaf.public_key()


def test_the_keeper_renews_with_a_new_key_before_the_end(ca: Authorities) -> None:
    clock = FakeClock()
    keeper = IdentityKeeper(CurrentCa(ca.issuer, ca.bundle), clock=clock, lifetime=timedelta(hours=3))
    first = keeper.current
    assert keeper.current is first
    assert timedelta(hours=1.79) < keeper.due - clock.now() < timedelta(hours=2.02)
    clock.advance(timedelta(hours=2, minutes=2))
    second = keeper.current
    assert second.signer.key_id != first.signer.key_id
    assert second.certificate.not_after > first.certificate.not_after
    assert keeper.current is second


def test_receipts_signed_before_and_after_a_renewal_are_one_chain() -> None:
    world = World("sqlite://")
    aggregator, site = world.join("main", Role.AGGREGATOR), world.join("site-a")
    leaves = set()
    for step in (1, 2):
        exchange = Exchange(world, aggregator, step=step)
        exchange.open(site)
        receipt = exchange.session.seal_round(exchange.key, (exchange.answer(site),), ())
        leaves.add(receipt_of(receipt).certificate)
        renewed = issue_identity(world.ca.issuer, world.bundle, clock=world.clock)
        world.authority.use_identity(renewed.signer, renewed.chain_der)
    assert len(leaves) == 2
    assert Digest.sha256_of(world.identity.chain_der[0]) in leaves
    records = [world.op.get_round(RUN, step) for step in (1, 2)]
    assert verify_chain(records, world.bundle).is_good
    world.close()


def test_another_key_or_another_role_does_not_sign_receipts() -> None:
    world = World("sqlite://")
    aggregator = world.join("main", Role.AGGREGATOR)
    with pytest.raises(Conflict, match="another key"):
        world.authority.use_identity(generate(), world.identity.chain_der)
    with pytest.raises(CertificateRefused, match="role"):
        world.authority.use_identity(aggregator.signer, aggregator.chain)
    world.close()


def test_the_rooms_behind_a_session_judge_its_caller_again_under_the_lock() -> None:
    """Between a session's own check and the lock a revocation may commit: here it has."""
    world = World("sqlite://")
    aggregator, site = world.join("main", Role.AGGREGATOR), world.join("site-a")
    exchange = Exchange(world, aggregator)
    exchange.open(site)
    candidate = exchange.answer(site)
    seat = exchange.instruct(site)
    second = world.join("second", Role.OPERATOR)
    for member in (aggregator, site, second):
        world.revoke(member)
    desk, head = world.authority.rounds, world.authority.head
    calls = (
        lambda: desk.seal_round(aggregator.certificate, exchange.key, (candidate,), ()),
        lambda: desk.open_round(aggregator.certificate, exchange.key, (seat,)),
        lambda: desk.close_run(aggregator.certificate, RUN),
        lambda: world.authority.tokens.create(
            site.spiffe_id, ttl=timedelta(minutes=1), replace=True, caller=second.certificate
        ),
        lambda: world.authority.tokens.cancel("0" * 16, caller=second.certificate),
    )
    for call in calls:
        with pytest.raises(FltrustError) as refusal:
            call()
        assert refusal.value.reason == "revoked"
    assert world.authority.head == head
    world.close()
