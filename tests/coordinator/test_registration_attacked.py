"""What former operators, one operator alone and eavesdroppers try at the registration authority."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from authority_world import DOMAIN, World, request
from registrar_world import ask, colleague, four_eyes, key_pair

from fltrust.enrollment.approvals import ApprovalPolicy
from fltrust.enrollment.bulk import BulkItem
from fltrust.enrollment.mackeys import MacPurpose
from fltrust.enrollment.requests import Assignment, RequestState
from fltrust.enrollment.types import EnrollmentProtocol, EnrollRequest, Issued, JoinTokenEvidence, Pending
from fltrust.errors import FltrustError, PermissionDenied, Refused, TokenRefused
from fltrust.identity import Name, Role, SpiffeId
from fltrust.keys import generate
from fltrust.pki import create_csr
from fltrust.revocation.events import RevocationReason
from fltrust.revocation.ports import RevocationTarget

WorldWith = Callable[[ApprovalPolicy], World]
SECOND_SELF = Assignment(role=Role.OPERATOR, name=Name("second-self"))


def test_an_operator_who_asks_as_a_stranger_does_not_let_its_second_self_in_alone(
    world_with: WorldWith,
) -> None:
    world = world_with(four_eyes(is_manual_taken=True))
    outcome = world.authority.submit(ask(generate()))
    assert isinstance(outcome, Pending)
    view = world.op.approve_request(outcome.request_id, reason="a new colleague", assignment=SECOND_SELF)
    assert (view.request.needed, view.request.state) == (2, RequestState.CHECKED)
    bob = world.session(colleague(world, "bob"))
    view = bob.approve_request(outcome.request_id, reason="I know them", assignment=SECOND_SELF)
    assert view.request.state is RequestState.APPROVED


def test_tokens_and_credentials_of_an_operator_who_was_revoked_earn_nothing(world: World) -> None:
    mallory = colleague(world, "mallory")
    held = world.session(mallory)
    made = held.create_token(Role.OPERATOR, Name("second-self"), ttl=timedelta(hours=1))
    made_by_others = world.token("site-a")
    held.create_credential(MacPurpose.CMP, Role.DEVICE, Name("meter"), ttl=timedelta(hours=1))
    world.revoke(mallory)
    with pytest.raises(TokenRefused):
        world.authority.submit(request(made, generate(), None))
    assert {t.status for t in world.op.list_tokens() if t.created_by == mallory.spiffe_id} == {"cancelled"}
    assert isinstance(world.authority.submit(request(made_by_others, *key_pair())), Issued)


def test_a_token_of_an_operator_on_hold_waits_for_its_release(world: World) -> None:
    bob = colleague(world, "bob")
    made = world.session(bob).create_token(Role.PARTICIPANT, Name("site-a"), ttl=timedelta(hours=1))
    world.op.hold(bob.target, reason=RevocationReason.KEY_COMPROMISE)
    wanted = request(made, *key_pair())
    with pytest.raises(Refused):
        world.authority.submit(wanted)
    world.op.release(bob.target)
    assert isinstance(world.authority.submit(wanted), Issued)


@pytest.mark.parametrize("role", [Role.WORKLOAD, Role.COORDINATOR])
def test_a_role_that_nobody_joins_as_is_earned_in_no_way(world_with: WorldWith, role: Role) -> None:
    world = world_with(ApprovalPolicy(is_manual_taken=True))
    name, op = Name("participant-site-a"), world.op
    wanted = Assignment(role=role, name=name)
    key = generate()
    outcome = world.authority.submit(ask(key))
    assert isinstance(outcome, Pending)
    for act in (
        lambda: op.create_token(role, name, ttl=timedelta(minutes=1)),
        lambda: op.create_tokens([wanted], ttl=timedelta(minutes=1)),
        lambda: op.approve_request(outcome.request_id, reason="x", assignment=wanted),
        lambda: op.enroll_bulk([BulkItem(who=wanted, csr_der=create_csr(generate()))], atomic=True),
    ):
        with pytest.raises(FltrustError):
            act()
    assert not [who for who in world.authority.ledger.identities() if who.role is role and who.name]


def test_a_stranger_writes_nothing_into_the_log(world_with: WorldWith) -> None:
    world = world_with(ApprovalPolicy(is_manual_taken=True))
    with world.authority.ledger.reading() as tx:
        before = tx.tlog.head.size
    for _ in range(3):
        world.authority.submit(ask(generate()))
    world.clock.advance(timedelta(days=8))
    world.authority.submit(ask(generate(), source="another"))
    with world.authority.ledger.reading() as tx:
        assert tx.tlog.head.size == before


def test_a_token_shown_by_several_protocols_at_once_earns_one_certificate(world: World) -> None:
    secret = world.token("meter", Role.DEVICE).secret
    ways = [p for p in EnrollmentProtocol for _ in range(2)]
    got: list[Issued | Pending] = []
    start = threading.Barrier(len(ways))

    def show(protocol: EnrollmentProtocol) -> None:
        start.wait()
        try:
            got.append(
                world.authority.submit(
                    EnrollRequest(JoinTokenEvidence(secret), create_csr(generate()), protocol=protocol)
                )
            )
        except TokenRefused:
            return

    threads = [threading.Thread(target=show, args=(way,)) for way in ways]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1
    who = SpiffeId(DOMAIN, Role.DEVICE, Name("meter"))
    with world.authority.ledger.reading() as tx:
        assert len(tx.certificates.of(who)) == 1


def test_a_credential_s_id_is_no_token_s_secret(world: World) -> None:
    made = world.op.create_credential(MacPurpose.CMP, Role.DEVICE, Name("meter"), ttl=timedelta(hours=1))
    for secret in (made.key, made.credential_id.encode().ljust(32, b"\0")):
        with pytest.raises(FltrustError):
            world.authority.submit(EnrollRequest(JoinTokenEvidence(secret[:32]), create_csr(generate())))


def test_bulk_under_a_quorum_makes_no_operator(world_with: WorldWith) -> None:
    world = world_with(four_eyes())
    item = BulkItem(who=SECOND_SELF, csr_der=create_csr(generate()))
    (result,) = world.op.enroll_bulk([item], atomic=False).results
    assert result.certificate is None
    assert result.request_id
    with pytest.raises(PermissionDenied):
        world.op.approve_request(result.request_id, reason="mine")
    with pytest.raises(PermissionDenied):
        world.op.release(RevocationTarget(name=(Role.PARTICIPANT, Name("x"))))
