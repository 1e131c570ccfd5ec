"""Verification: each step of the recipe refuses, with its own reason, and only then."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from update_world import DOMAIN, NOW, Person, World, content, stands_well

from fltrust.errors import (
    CertificateRefused,
    FltrustError,
    Malformed,
    Oversized,
    Revoked,
    SignatureInvalid,
    UpdateRefused,
)
from fltrust.identity import Digest, KeyId, NodeId, Role, RunId, SpiffeId, TrustDomain
from fltrust.pki.types import VerifiedCertificate
from fltrust.updates import (
    Envelope,
    InstructionStatement,
    Phase,
    SignedStatement,
    Statement,
    UpdateStatement,
    VerifiedInstruction,
    VerifiedReceipt,
    VerifiedUpdate,
    Verifier,
    claimed_at,
    content_digest,
    model_digest,
    same_digest,
    unverified_statement,
)

MODEL, REPLY = content(1.0, 2.0), content(3.0, 4.0)
SITE_B = SpiffeId.of(DOMAIN, Role.PARTICIPANT, "site-b")
LATER = NOW + timedelta(minutes=2)


@pytest.fixture(scope="module")
def instruction(world: World) -> InstructionStatement:
    return world.instruction(MODEL)


@pytest.fixture(scope="module")
def update(world: World, instruction: InstructionStatement) -> UpdateStatement:
    return world.update(REPLY, answers=instruction)


def forged(statement: Statement, by: Person) -> SignedStatement:
    """A statement signed by whoever has the key, with none of the checks of honest signers."""
    return SignedStatement(Envelope.sign(statement.to_payload(), signer=by.signer).to_json(), by.chain)


def open_instruction(world: World, signed: SignedStatement, **changes: Any) -> VerifiedInstruction:
    arguments: dict[str, Any] = {
        "at": LATER,
        "judge": stands_well,
        "expected": world.expected_instruction(),
        "content_digest": content_digest(MODEL),
        "model_digest": model_digest(MODEL),
    }
    return Verifier(world.bundle).verify_instruction(signed, **(arguments | changes))


def open_update(
    world: World, signed: SignedStatement, answers: InstructionStatement, **changes: Any
) -> VerifiedUpdate:
    expected = world.expected_update(answers, **changes.pop("expected", {}))
    arguments: dict[str, Any] = {"at": LATER, "judge": stands_well, "expected": expected, "content": REPLY}
    return Verifier(world.bundle).verify_update(signed, **(arguments | changes))


def refused(attempt: Callable[[], object]) -> FltrustError:
    with pytest.raises(FltrustError) as caught:
        attempt()
    return caught.value


# -- what is right passes ---------------------------------------------------------------------------------


def test_an_instruction_for_this_node_verifies(world: World, instruction: InstructionStatement) -> None:
    verified = open_instruction(world, world.aggregator.sign(instruction))
    assert verified.statement == instruction
    assert verified.certificate.spiffe_id == world.aggregator.spiffe_id
    assert verified.payload_digest == Digest.sha256_of(instruction.to_payload())
    assert verified.content_checked


def test_an_update_that_answers_the_instruction_verifies(
    world: World, instruction: InstructionStatement, update: UpdateStatement
) -> None:
    signed = world.site_a.sign(update)
    verified = open_update(world, SignedStatement.from_bytes(signed.to_bytes()), instruction)
    assert verified.statement == update
    assert verified.payload_digest == Digest.sha256_of(update.to_payload())
    assert verified.content_checked
    assert open_update(world, signed, instruction, content=content_digest(REPLY)) == verified


def test_without_the_content_at_hand_the_result_says_so(
    world: World, instruction: InstructionStatement, update: UpdateStatement
) -> None:
    assert not open_update(world, world.site_a.sign(update), instruction, content=None).content_checked
    signed = world.aggregator.sign(instruction)
    assert not open_instruction(world, signed, content_digest=None, model_digest=None).content_checked


def test_a_receipt_verifies(world: World, update: UpdateStatement) -> None:
    receipt = world.receipt(update)
    verified = Verifier(world.bundle).verify_receipt(
        world.coordinator.sign(receipt), at=LATER, judge=stands_well
    )
    assert isinstance(verified, VerifiedReceipt)
    assert verified.statement == receipt


def test_the_same_arguments_always_give_the_same_answer(
    world: World, instruction: InstructionStatement, update: UpdateStatement
) -> None:
    signed = world.site_a.sign(update)
    assert open_update(world, signed, instruction) == open_update(world, signed, instruction)


def test_what_was_signed_in_time_verifies_years_later_at_the_time_it_was_signed(
    world: World, instruction: InstructionStatement, update: UpdateStatement
) -> None:
    signed = world.site_a.sign(update)
    years_later = NOW + timedelta(days=1000)
    late = refused(lambda: open_update(world, signed, instruction, at=years_later))
    assert late.reason == "certificate-expired"
    assert claimed_at(signed) == update.signed_at == unverified_statement(signed).claimed_at
    assert open_update(world, signed, instruction, at=claimed_at(signed)).statement == update


# -- steps 1 to 8, for every kind -------------------------------------------------------------------------


def test_1_an_oversized_envelope_is_refused(world: World, update: UpdateStatement) -> None:
    signed = replace(world.site_a.sign(update), envelope_json=b" " * (64 * 1024 + 1))
    with pytest.raises(Oversized):
        Verifier(world.bundle).open(signed, at=LATER, role=Role.PARTICIPANT, judge=stands_well)


def test_2_an_envelope_that_is_none_is_malformed(
    world: World, instruction: InstructionStatement, update: UpdateStatement
) -> None:
    signed = replace(world.site_a.sign(update), envelope_json=b"{}")
    with pytest.raises(Malformed):
        open_update(world, signed, instruction)


def test_3_a_certificate_of_another_authority_domain_time_or_role_is_refused(
    world: World, instruction: InstructionStatement, update: UpdateStatement
) -> None:
    signed = world.site_a.sign(update)
    same_name, elsewhere = World(DOMAIN), World(TrustDomain("other.example"))
    for attempt, reason in (
        (lambda: open_update(same_name, signed, instruction), "certificate-path"),
        (lambda: open_update(elsewhere, signed, instruction), "wrong-domain"),
        (lambda: open_update(world, signed, instruction, at=NOW + timedelta(hours=2)), "certificate-expired"),
        (
            lambda: open_update(world, signed, instruction, at=NOW - timedelta(hours=2)),
            "certificate-not-yet-valid",
        ),
        (lambda: open_instruction(world, signed), "wrong-role"),
    ):
        error = refused(attempt)
        assert isinstance(error, CertificateRefused)
        assert error.reason == reason


def test_3_a_chain_that_is_no_certificate_is_refused(
    world: World, instruction: InstructionStatement, update: UpdateStatement
) -> None:
    signed = replace(world.site_a.sign(update), chain_der=(b"x",))
    assert isinstance(refused(lambda: open_update(world, signed, instruction)), CertificateRefused)


def test_4_the_judge_sees_the_verified_certificate_and_has_the_last_word(
    world: World, instruction: InstructionStatement, update: UpdateStatement
) -> None:
    seen: list[VerifiedCertificate] = []

    def judge(certificate: VerifiedCertificate) -> None:
        seen.append(certificate)
        raise Revoked("revoked at epoch 7")

    with pytest.raises(Revoked):
        open_update(world, world.site_a.sign(update), instruction, judge=judge)
    assert [certificate.spiffe_id for certificate in seen] == [world.site_a.spiffe_id]
    assert seen[0].fingerprint == world.site_a.certificate


def test_5_a_signature_by_another_key_is_refused(
    world: World, instruction: InstructionStatement, update: UpdateStatement
) -> None:
    by_b = forged(update, world.site_b)
    stolen_chain = replace(by_b, chain_der=world.site_a.chain)
    assert isinstance(refused(lambda: open_update(world, stolen_chain, instruction)), SignatureInvalid)
    envelope = Envelope.from_json(by_b.envelope_json)
    claims_a = replace(envelope, signatures=((world.site_a.signer.key_id, envelope.signatures[0][1]),))
    relabelled = SignedStatement(claims_a.to_json(), world.site_a.chain)
    assert isinstance(refused(lambda: open_update(world, relabelled, instruction)), SignatureInvalid)


def test_5_a_payload_is_not_parsed_before_its_signature_is_verified(
    world: World, instruction: InstructionStatement, update: UpdateStatement
) -> None:
    envelope = json.loads(world.site_a.sign(update).envelope_json)
    envelope["payload"] = base64.b64encode(b"not even JSON").decode()
    altered = json.dumps(envelope, sort_keys=True, separators=(",", ":")).encode()
    signed = SignedStatement(altered, world.site_a.chain)
    assert isinstance(refused(lambda: open_update(world, signed, instruction)), SignatureInvalid)


def test_6_a_signed_payload_that_is_no_statement_is_malformed(
    world: World, instruction: InstructionStatement
) -> None:
    envelope = Envelope.sign(b"not even JSON", signer=world.site_a.signer)
    signed = SignedStatement(envelope.to_json(), world.site_a.chain)
    assert isinstance(refused(lambda: open_update(world, signed, instruction)), Malformed)


def test_7_a_statement_speaks_for_its_certificate_and_its_signer(
    world: World, instruction: InstructionStatement, update: UpdateStatement
) -> None:
    other_certificate = forged(replace(update, certificate=world.site_b.certificate), world.site_a)
    assert refused(lambda: open_update(world, other_certificate, instruction)).reason == "wrong-certificate"
    other_name = forged(replace(update, participant=SITE_B), world.site_a)
    assert refused(lambda: open_update(world, other_name, instruction)).reason == "unknown-identity"
    elsewhere = World(TrustDomain("other.example"))
    foreign = replace(
        elsewhere.update(REPLY, answers=elsewhere.instruction(MODEL)), certificate=world.site_a.certificate
    )
    assert (
        refused(lambda: open_update(world, forged(foreign, world.site_a), instruction)).reason
        == "wrong-domain"
    )


@pytest.mark.parametrize(
    ("signed_at", "at", "reason"),
    [
        (NOW + timedelta(minutes=59), NOW + timedelta(minutes=58), "expired"),
        (NOW + timedelta(hours=2), NOW + timedelta(minutes=58), "certificate-expired"),
        (NOW - timedelta(hours=1), NOW, "certificate-not-yet-valid"),
    ],
)
def test_8_the_claimed_time_lies_in_the_certificates_life_and_not_in_the_future(
    world: World, instruction: InstructionStatement, update: UpdateStatement,
    signed_at: datetime, at: datetime, reason: str,
) -> None:  # fmt: skip
    signed = forged(replace(update, signed_at=signed_at), world.site_a)
    assert refused(lambda: open_update(world, signed, instruction, at=at)).reason == reason


def test_8_a_clock_half_a_minute_ahead_is_tolerated(
    world: World, instruction: InstructionStatement, update: UpdateStatement
) -> None:
    signed = world.site_a.sign(update)
    assert open_update(world, signed, instruction, at=update.signed_at - timedelta(seconds=30))
    too_far = update.signed_at - timedelta(seconds=30, microseconds=1)
    assert refused(lambda: open_update(world, signed, instruction, at=too_far)).reason == "expired"


# -- instructions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"run_id": RunId(1)}, "wrong-run"),
        ({"participant": SITE_B}, "wrong-participant"),
        ({"node_id": NodeId(1)}, "wrong-node"),
        ({"node_key": KeyId("cd" * 32)}, "wrong-node"),
        ({"message_type": "train.other"}, "wrong-phase"),
    ],
)
def test_10_an_instruction_for_another_run_or_node_is_refused(
    world: World, instruction: InstructionStatement, change: dict[str, Any], reason: str
) -> None:
    signed = world.aggregator.sign(instruction)
    expected = world.expected_instruction(**change)
    assert refused(lambda: open_instruction(world, signed, expected=expected)).reason == reason


def test_10_a_node_that_does_not_know_its_key_does_not_compare_it(
    world: World, instruction: InstructionStatement
) -> None:
    expected = world.expected_instruction(node_key=None)
    assert open_instruction(world, world.aggregator.sign(instruction), expected=expected)


def test_11_an_instruction_is_in_force_until_half_a_minute_after_it_expires(
    world: World, instruction: InstructionStatement
) -> None:
    signed = world.aggregator.sign(instruction)
    last = instruction.expires_at + timedelta(seconds=30)
    assert open_instruction(world, signed, at=last)
    assert (
        refused(lambda: open_instruction(world, signed, at=last + timedelta(microseconds=1))).reason
        == "expired"
    )


def test_12_an_instruction_about_another_content_or_model_is_refused(
    world: World, instruction: InstructionStatement
) -> None:
    signed = world.aggregator.sign(instruction)
    altered = refused(lambda: open_instruction(world, signed, content_digest=content_digest(REPLY)))
    assert isinstance(altered, UpdateRefused)
    assert altered.reason == "digest-mismatch"
    other = refused(lambda: open_instruction(world, signed, model_digest=model_digest(REPLY)))
    assert other.reason == "wrong-model"


def test_9_a_kind_of_statement_that_was_not_asked_for_is_refused(
    world: World, instruction: InstructionStatement, update: UpdateStatement
) -> None:
    """The signer's role settles it: nobody can hold a certificate of two roles."""
    as_instruction = forged(replace(update, certificate=world.aggregator.certificate), world.aggregator)
    assert refused(lambda: open_instruction(world, as_instruction)).reason == "unknown-identity"
    as_update = forged(replace(instruction, certificate=world.site_a.certificate), world.site_a)
    assert refused(lambda: open_update(world, as_update, instruction)).reason == "unknown-identity"


# -- updates -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"domain": TrustDomain("other.example")}, "wrong-domain"),
        ({"run_id": RunId(1)}, "wrong-run"),
        ({"round": 3}, "wrong-round"),
        ({"phase": Phase.EVALUATE}, "wrong-phase"),
        ({"step": 4}, "wrong-round"),
        ({"message_type": "train.other"}, "wrong-phase"),
        ({"participant": SITE_B}, "wrong-participant"),
        ({"node_id": NodeId(1)}, "wrong-node"),
        ({"node_key": KeyId("cd" * 32)}, "wrong-node"),
        ({"instruction_id": "f" * 32}, "wrong-instruction"),
        ({"instruction": Digest.sha256_of(b"another")}, "wrong-instruction"),
        ({"model": model_digest(REPLY)}, "wrong-model"),
    ],
)
def test_10_to_12_an_update_that_answers_something_else_is_refused(
    world: World, instruction: InstructionStatement, update: UpdateStatement,
    change: dict[str, Any], reason: str,
) -> None:  # fmt: skip
    signed = world.site_a.sign(update)
    assert refused(lambda: open_update(world, signed, instruction, expected=change)).reason == reason


def test_13_an_update_about_another_content_is_refused(
    world: World, instruction: InstructionStatement, update: UpdateStatement
) -> None:
    signed = world.site_a.sign(update)
    for other in (MODEL, content_digest(MODEL), Digest("sha256", content_digest(REPLY).value)):
        error = refused(lambda other=other: open_update(world, signed, instruction, content=other))  # type: ignore[misc]
        assert isinstance(error, UpdateRefused)
        assert error.reason == "digest-mismatch"


def test_digests_of_different_algorithms_are_never_the_same() -> None:
    assert same_digest(Digest("a", b"x" * 32), Digest("a", b"x" * 32))
    assert not same_digest(Digest("a", b"x" * 32), Digest("b", b"x" * 32))
