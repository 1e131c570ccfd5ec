"""A participant of another trust domain in a round of ours: under its own CA, and what that CA cannot do."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from update_world import NOW, Person, World, content, stands_well

from fltrust.errors import CertificateRefused, Conflict, FltrustError, Refusal, StatementRefused
from fltrust.identity import Role, TrustDomain
from fltrust.pki import verify_certificate
from fltrust.pki.federated import TrustSet, all_roots, claimed_domain, verify_among
from fltrust.updates import ExpectedUpdate, SignedStatement, Statement, UpdateStatement, Verifier
from fltrust.updates.dsse import Envelope

MODEL, REPLY = content(1.0, 2.0), content(3.0, 4.0)
LATER = NOW + timedelta(minutes=2)
CLINIC = TrustDomain("clinic.example")


@pytest.fixture(scope="module")
def clinic() -> World:
    return World(CLINIC)


def _exchange(world: World, who: Person) -> tuple[UpdateStatement, ExpectedUpdate]:
    instruction = world.instruction(MODEL, participant=who.spiffe_id)
    update = world.update(REPLY, answers=instruction, participant=who.spiffe_id, certificate=who.certificate)
    return update, ExpectedUpdate.answering(instruction, instruction=update.instruction)


def _forged(statement: Statement, by: Person) -> SignedStatement:
    return SignedStatement(Envelope.sign(statement.to_payload(), signer=by.signer).to_json(), by.chain)


def _verify(verifier: Verifier, signed: SignedStatement, expected: ExpectedUpdate) -> object:
    return verifier.verify_update(
        signed, at=LATER, judge=stands_well, expected=expected, content=REPLY
    ).certificate.spiffe_id


def test_a_foreign_participant_answers_under_its_own_ca(world: World, clinic: World) -> None:
    update, expected = _exchange(world, clinic.site_a)
    verifier = Verifier(world.bundle, foreign=[clinic.bundle])
    assert _verify(verifier, clinic.site_a.sign(update), expected) == clinic.site_a.spiffe_id


def test_our_own_participants_answer_as_before(world: World, clinic: World) -> None:
    update, expected = _exchange(world, world.site_a)
    verifier = Verifier(world.bundle, foreign=[clinic.bundle])
    assert _verify(verifier, world.site_a.sign(update), expected) == world.site_a.spiffe_id


def test_a_domain_that_is_not_federated_with_is_refused(world: World, clinic: World) -> None:
    update, expected = _exchange(world, clinic.site_a)
    with pytest.raises(CertificateRefused) as refused:
        _verify(Verifier(world.bundle), clinic.site_a.sign(update), expected)
    assert refused.value.reason == Refusal.WRONG_DOMAIN


def test_a_foreign_ca_names_nobody_of_ours(world: World, clinic: World) -> None:
    impostor = World(world.domain)  # a CA of somebody else's that claims our domain
    other = impostor.site_a
    update, expected = _exchange(world, other)
    verifier = Verifier(world.bundle, foreign=[clinic.bundle])
    chains = ((other.chain[0], clinic.site_a.chain[1]), other.chain)
    for chain in chains:
        with pytest.raises(CertificateRefused) as refused:
            _verify(verifier, SignedStatement(other.sign(update).envelope_json, chain), expected)
        assert refused.value.reason == Refusal.CERTIFICATE_PATH


def test_a_foreign_ca_names_nobody_of_a_third_domain(world: World, clinic: World) -> None:
    third = World(TrustDomain("lab.example"))
    forger = World(third.domain)
    update, expected = _exchange(world, forger.site_a)
    verifier = Verifier(world.bundle, foreign=[clinic.bundle, third.bundle])
    with pytest.raises(CertificateRefused) as refused:
        _verify(verifier, _forged(update, forger.site_a), expected)
    assert refused.value.reason == Refusal.CERTIFICATE_PATH


@pytest.mark.parametrize("role", [r for r in Role if r not in (Role.PARTICIPANT, Role.SERVER)])
def test_a_foreign_identity_is_a_participant_here_or_nothing(world: World, clinic: World, role: Role) -> None:
    name = None if role is Role.COORDINATOR else "eve"
    eve = clinic.person(role, name)
    assert verify_certificate(eve.chain, bundle=clinic.bundle, at=NOW).spiffe_id.role is role
    with pytest.raises(CertificateRefused) as refused:
        verify_among(eve.chain, trust=TrustSet.of(world.bundle, [clinic.bundle]), at=NOW)
    assert refused.value.reason == Refusal.WRONG_ROLE


def test_a_foreign_aggregator_instructs_nobody_of_ours(world: World, clinic: World) -> None:
    verifier = Verifier(world.bundle, foreign=[clinic.bundle])
    for domain in (clinic.domain, world.domain):
        statement = clinic.instruction(MODEL, participant=world.site_a.spiffe_id)
        if domain == world.domain:
            statement = replace(statement, domain=world.domain, aggregator=world.aggregator.spiffe_id)
        signed = _forged(statement, clinic.aggregator)
        with pytest.raises(CertificateRefused) as refused:
            verifier.open(signed, at=LATER, role=Role.AGGREGATOR, judge=stands_well)
        assert refused.value.reason == Refusal.WRONG_DOMAIN


def test_a_foreign_coordinator_seals_nothing_of_ours(world: World, clinic: World) -> None:
    verifier = Verifier(world.bundle, foreign=[clinic.bundle])
    update, _ = _exchange(clinic, clinic.site_a)
    signed = clinic.coordinator.sign(clinic.receipt(update))
    with pytest.raises(CertificateRefused) as refused:
        verifier.open(signed, at=LATER, role=Role.COORDINATOR, judge=stands_well)
    assert refused.value.reason == Refusal.WRONG_DOMAIN


def test_an_update_made_for_a_round_at_home_counts_in_no_round_of_another_domain(
    world: World, clinic: World
) -> None:
    at_home, _ = _exchange(clinic, clinic.site_a)
    _, expected = _exchange(world, clinic.site_a)
    verifier = Verifier(world.bundle, foreign=[clinic.bundle])
    with pytest.raises(StatementRefused) as refused:
        _verify(verifier, clinic.site_a.sign(at_home), expected)
    assert refused.value.reason == Refusal.WRONG_DOMAIN


def test_a_participant_signs_for_no_other_whichever_domain_it_is_of(world: World, clinic: World) -> None:
    verifier = Verifier(world.bundle, foreign=[clinic.bundle])
    for who, by in (
        (world.site_a, clinic.site_a),
        (clinic.site_b, clinic.site_a),
        (clinic.site_a, world.site_a),
    ):
        update, expected = _exchange(world, who)
        update = replace(update, certificate=by.certificate)
        with pytest.raises(FltrustError) as refused:
            _verify(verifier, _forged(update, by), expected)
        assert refused.value.reason == Refusal.UNKNOWN_IDENTITY


def test_a_receipt_names_foreign_participants_as_what_they_are(world: World, clinic: World) -> None:
    update, _ = _exchange(world, clinic.site_a)
    receipt = world.receipt(update)
    admitted = (replace(receipt.admitted[0], participant=clinic.site_a.spiffe_id),)
    signed = world.coordinator.sign(replace(receipt, admitted=admitted))
    opened = Verifier(world.bundle).verify_receipt(signed, at=LATER, judge=stands_well)
    assert opened.statement.admitted[0].participant == clinic.site_a.spiffe_id


def test_a_set_has_one_bundle_for_each_domain(world: World, clinic: World) -> None:
    for foreign in ([clinic.bundle, World(CLINIC).bundle], [World(world.domain).bundle]):
        with pytest.raises(Conflict):
            TrustSet.of(world.bundle, foreign)


def test_a_claim_that_cannot_be_read_selects_our_own_roots(world: World, clinic: World) -> None:
    trust = TrustSet.of(world.bundle, [clinic.bundle])
    for leaf in (b"", b"\x30\x00", b"\x30" * 20_000):
        assert claimed_domain(leaf) is None
        assert trust.claimed_by([leaf]) is world.bundle
    assert claimed_domain(clinic.site_a.chain[0]) == CLINIC
    assert all_roots(trust).count(b"BEGIN") == 2
