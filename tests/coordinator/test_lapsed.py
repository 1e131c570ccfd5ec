"""A node that slept comes back with the certificate that ran out; nobody else does with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from authority_world import Member, World

from fltrust.enrollment.approvals import ApprovalPolicy
from fltrust.enrollment.challenge import node_key_challenge
from fltrust.enrollment.lapsed import LapsedEvidence, lapsed_challenge
from fltrust.enrollment.types import Approval, EnrollmentProtocol, EnrollRequest, Issued, Pending
from fltrust.errors import EvidenceRefused, FltrustError, Revoked, SignatureInvalid
from fltrust.identity import Name, Role
from fltrust.keys import FileSigner, generate, spki_der
from fltrust.pki import create_csr
from fltrust.revocation.events import RevocationReason

HOUR = timedelta(hours=1)


@pytest.fixture
def world() -> Iterator[World]:
    made = World("sqlite://")
    yield made
    made.close()


def evidence_of(
    world: World, member: Member, *, key: FileSigner | None = None, node: FileSigner | None = None
) -> EnrollRequest:
    signer, node = generate(), node or member.node
    csr = create_csr(signer)
    proof = (key or member.signer).sign(lapsed_challenge(csr, member.chain[0], world.bundle.domain))
    evidence = LapsedEvidence(tuple(member.chain), proof)
    request = EnrollRequest(evidence, csr)
    if node is not None:
        request = EnrollRequest(
            evidence, csr, spki_der(node.public_key), node.sign(node_key_challenge(csr, evidence))
        )
    return request


def come_back(world: World, member: Member, **keys: FileSigner) -> Issued:
    return world.authority.enroll(evidence_of(world, member, **keys))


def test_within_the_grace_a_node_comes_back_under_its_name_and_it_is_on_record(world: World) -> None:
    site = world.join("site-a")
    world.clock.advance(3 * HOUR)
    issued = come_back(world, site)
    assert issued.spiffe_id == site.spiffe_id
    assert world.op.get_enrollment(site.spiffe_id).evidence == "lapsed-certificate"


def test_after_the_grace_or_without_one_it_needs_an_operator(world: World) -> None:
    site = world.join("site-a")
    world.clock.advance(timedelta(hours=73, seconds=1))
    with pytest.raises(EvidenceRefused) as refused:
        come_back(world, site)
    assert refused.value.reason == "lapsed"


@pytest.mark.parametrize("act", ["revoke", "hold"])
def test_what_was_revoked_or_held_does_not_come_back(world: World, act: str) -> None:
    site = world.join("site-a")
    getattr(world.op, act)(site.target, reason=RevocationReason.UNSPECIFIED)
    world.clock.advance(3 * HOUR)
    with pytest.raises(Revoked):
        come_back(world, site)


def test_an_older_certificate_from_a_backup_brings_nobody_back(world: World) -> None:
    site = world.join("site-a")
    world.clock.advance(HOUR / 2)
    world.renew(site)
    world.clock.advance(3 * HOUR)
    with pytest.raises(EvidenceRefused) as refused:
        come_back(world, site)
    assert refused.value.reason == "superseded"


def test_a_certificate_that_nobody_was_issued_brings_nobody_back(world: World) -> None:
    site = world.join("site-a")
    minted = world.mint(site)
    world.clock.advance(3 * HOUR)
    with pytest.raises(FltrustError):
        come_back(world, replace(minted, node=site.node))


def test_whoever_found_only_the_certificate_or_only_its_key_is_refused(world: World) -> None:
    site = world.join("site-a")
    world.clock.advance(3 * HOUR)
    with pytest.raises(SignatureInvalid):
        come_back(world, site, key=generate())
    with pytest.raises(EvidenceRefused) as refused:
        come_back(world, site, node=generate())
    assert refused.value.reason == "node-key-taken"


def test_the_same_evidence_is_good_once(world: World) -> None:
    site = world.join("site-a")
    world.clock.advance(3 * HOUR)
    come_back(world, site)
    with pytest.raises(EvidenceRefused):
        come_back(world, site)


def test_an_operator_that_was_away_comes_back_by_the_word_of_another(world: World) -> None:
    operator = world.join("second", Role.OPERATOR)
    world.clock.advance(timedelta(hours=13))
    with pytest.raises(EvidenceRefused):
        come_back(world, operator)


@pytest.mark.parametrize("moment", ["before the approval", "after it"])
def test_a_name_that_was_enrolled_anew_is_not_taken_back_by_a_request_that_waited(moment: str) -> None:
    world = World("sqlite://", approvals=ApprovalPolicy(evidence={"lapsed-certificate": 1}))
    site = world.join("site-a")
    world.clock.advance(3 * HOUR)
    request = evidence_of(world, site)
    waits = world.authority.submit(request)
    assert isinstance(waits, Pending)
    if moment == "after it":
        world.op.approve_request(waits.request_id, reason="it was off")
    fresh = world.join("site-a", token=world.token("site-a", replace=True), node=site.node)
    if moment == "after it":
        with pytest.raises(EvidenceRefused):
            world.authority.collect(waits.request_id, request.csr_der)
    else:
        with pytest.raises(EvidenceRefused):
            world.op.approve_request(waits.request_id, reason="it was off")
    world.authority.judge(fresh.certificate)
    world.close()


def test_coming_back_is_no_taking_over_and_waits_for_nobody() -> None:
    policy = ApprovalPolicy(operations=1, replace=1)
    approval = Approval(Role.PARTICIPANT, Name("site-a"), replace=True)
    grpc = EnrollmentProtocol.GRPC
    assert policy.needed(approval, evidence="lapsed-certificate", protocol=grpc) == 0
    assert policy.needed(approval, evidence="join-token", protocol=grpc) == 1
