from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest
from authority_world import Member, World
from registrar_world import colleague, decide, four_eyes, operation, propose, signed

from fltrust import strictjson
from fltrust.coordinator.ledger import Work
from fltrust.coordinator.operations import Executed
from fltrust.enrollment.approvals import ApprovalPolicy
from fltrust.enrollment.operation import Operation, Verdict, verify_decision
from fltrust.enrollment.operation_kinds import BULK_REVOKE, RELEASE_HOLD, BulkRevocation, release_parameters
from fltrust.enrollment.operation_ports import OperationState
from fltrust.errors import (
    Conflict,
    LimitExceeded,
    Malformed,
    NotFound,
    PermissionDenied,
    Revoked,
    SignatureInvalid,
    StatementRefused,
)
from fltrust.identity import Digest, Name, Role, RunId
from fltrust.pki.types import VerifiedCertificate
from fltrust.revocation.events import RevocationReason
from fltrust.revocation.ports import RevocationTarget
from fltrust.revocation.state import Standing
from fltrust.tlog.approvals import OperationEntry, OperationWord
from fltrust.tlog.entries import LogKind, parse_entry

WorldWith = Callable[[ApprovalPolicy], World]


def _held(world: World) -> Member:
    site = world.join("site-a")
    world.op.hold(site.target, reason=RevocationReason.UNSPECIFIED)
    return site


def _standing(world: World, member: Member) -> Standing:
    return world.authority.ledger.identities()[member.spiffe_id].standing


def _entries(world: World) -> list[OperationEntry]:
    with world.authority.ledger.reading() as tx:
        found = [parse_entry(entry.data) for entry in tx.tlog.find(kinds=(LogKind.OPERATION,))]
    return [entry for entry in found if isinstance(entry, OperationEntry)]


def test_a_hold_is_ended_by_the_second_operator_s_signature(each_world_with: WorldWith) -> None:
    world = each_world_with(four_eyes())
    site, bob = _held(world), colleague(world, "bob")
    wanted = operation(world, world.operator, RELEASE_HOLD, release_parameters(site.target))
    assert propose(world, world.operator, wanted).state is OperationState.PROPOSED
    assert _standing(world, site) is Standing.HELD
    done = decide(world, bob, wanted)
    assert done.state is OperationState.EXECUTED
    assert _standing(world, site) is Standing.ACTIVE
    steps = [(e.step, e.count, e.needed) for e in _entries(world)]
    assert steps == [
        (OperationWord.PROPOSED, 0, 1),
        (OperationWord.APPROVED, 1, 1),
        (OperationWord.EXECUTED, 0, 1),
    ]
    assert {e.operation for e in _entries(world)} == {wanted.digest}
    assert _entries(world)[-1].result == Digest.sha256_of(done.result or b"")
    world.reopen()
    assert world.op.get_operation(wanted.operation_id)[0].state is OperationState.EXECUTED


def test_alone_an_operator_s_own_signature_executes_and_is_logged(world_with: WorldWith) -> None:
    world = world_with(ApprovalPolicy())
    site = _held(world)
    wanted = operation(world, world.operator, RELEASE_HOLD, release_parameters(site.target))
    assert propose(world, world.operator, wanted).state is OperationState.EXECUTED
    assert _standing(world, site) is Standing.ACTIVE
    assert [e.step for e in _entries(world)] == [OperationWord.PROPOSED, OperationWord.EXECUTED]


def test_what_was_signed_verifies_later_offline(world_with: WorldWith) -> None:
    world = world_with(four_eyes())
    site, bob = _held(world), colleague(world, "bob")
    wanted = operation(world, world.operator, RELEASE_HOLD, release_parameters(site.target))
    propose(world, world.operator, wanted)
    decide(world, bob, wanted)
    record, decisions = world.op.get_operation(wanted.operation_id)
    world.clock.advance(timedelta(days=300))  # every certificate has run out
    said = Operation.from_payload(record.payload)
    found = [verify_decision(item.signed, said, bundle=world.bundle) for item in decisions]
    assert [(f.decision.operator, f.decision.verdict) for f in found] == [
        (world.operator.spiffe_id, Verdict.PROPOSE),
        (bob.spiffe_id, Verdict.APPROVE),
    ]
    # One word more or less, and nothing verifies.
    other = replace(said, reason="something else")
    for item in decisions:
        with pytest.raises(StatementRefused) as refused:
            verify_decision(item.signed, other, bundle=world.bundle)
        assert refused.value.reason == "wrong-operation"


@pytest.mark.parametrize("flipped", ["payload", "sig", "chain"])
def test_a_signed_decision_that_was_changed_is_refused(world_with: WorldWith, flipped: str) -> None:
    world = world_with(four_eyes())
    site = _held(world)
    wanted = operation(world, world.operator, RELEASE_HOLD, release_parameters(site.target))
    envelope = json.loads(signed(world, world.operator, wanted, Verdict.PROPOSE))
    other = json.loads(signed(world, colleague(world, "bob"), wanted, Verdict.PROPOSE))
    if flipped == "sig":
        envelope["signatures"][0]["sig"] = other["signatures"][0]["sig"]
    else:
        envelope[flipped] = other[flipped]
    with pytest.raises((SignatureInvalid, StatementRefused)):
        world.op.propose_operation(wanted.to_payload(), strictjson.encode(envelope))


def test_a_signature_made_for_another_kind_of_payload_is_no_decision(world_with: WorldWith) -> None:
    world = world_with(four_eyes())
    wanted = operation(world, world.operator, RELEASE_HOLD, release_parameters(_held(world).target))
    envelope = json.loads(signed(world, world.operator, wanted, Verdict.PROPOSE))
    for changes in ({"payloadType": "application/vnd.in-toto+json"}, {"extra": 1}):
        with pytest.raises((StatementRefused, Malformed)):
            world.op.propose_operation(wanted.to_payload(), strictjson.encode({**envelope, **changes}))


def test_who_proposed_does_not_approve_and_neither_does_a_renewed_certificate_of_theirs(
    world_with: WorldWith,
) -> None:
    world = world_with(four_eyes())
    site = _held(world)
    wanted = operation(world, world.operator, RELEASE_HOLD, release_parameters(site.target))
    propose(world, world.operator, wanted)
    for member in (world.operator, world.renew(world.operator)):
        with pytest.raises(PermissionDenied) as refused:
            decide(world, member, wanted)
        assert refused.value.reason == "four-eyes"
    assert _standing(world, site) is Standing.HELD


def test_a_quorum_is_of_operators_not_of_certificates(world_with: WorldWith) -> None:
    world = world_with(four_eyes(operations=2))
    site, bob = _held(world), colleague(world, "bob")
    wanted = operation(world, world.operator, RELEASE_HOLD, release_parameters(site.target))
    propose(world, world.operator, wanted)
    for member in (bob, world.renew(bob), bob):
        assert decide(world, member, wanted).state is OperationState.PROPOSED
    assert decide(world, colleague(world, "carol"), wanted).state is OperationState.EXECUTED


def test_an_approval_of_an_operator_who_was_revoked_since_does_not_count(world_with: WorldWith) -> None:
    world = world_with(four_eyes(operations=2))
    site, bob, carol = _held(world), colleague(world, "bob"), colleague(world, "carol")
    wanted = operation(world, world.operator, RELEASE_HOLD, release_parameters(site.target))
    propose(world, world.operator, wanted)
    decide(world, bob, wanted)
    world.revoke(bob)
    with pytest.raises(Revoked):
        decide(world, bob, wanted)
    assert decide(world, carol, wanted).state is OperationState.PROPOSED
    assert decide(world, colleague(world, "dave"), wanted).state is OperationState.EXECUTED


def test_what_a_revoked_operator_proposed_is_executed_by_nobody(world_with: WorldWith) -> None:
    world = world_with(four_eyes())
    site, bob = _held(world), colleague(world, "bob")
    wanted = operation(world, bob, RELEASE_HOLD, release_parameters(site.target))
    propose(world, bob, wanted)
    world.revoke(bob)
    with pytest.raises(Conflict) as refused:
        decide(world, world.operator, wanted)
    assert refused.value.reason == "proposer-revoked"
    assert _standing(world, site) is Standing.HELD


def test_an_approval_is_good_for_one_operation_once(world_with: WorldWith) -> None:
    """Replayed for another operation, by another caller, for the same one, for one with other words."""
    world = world_with(four_eyes(operations=2))
    site, bob = _held(world), colleague(world, "bob")
    first = operation(world, world.operator, RELEASE_HOLD, release_parameters(site.target))
    second = operation(world, world.operator, RELEASE_HOLD, release_parameters(site.target))
    for wanted in (first, second):
        propose(world, world.operator, wanted)
    approval = signed(world, bob, first, Verdict.APPROVE)
    with pytest.raises(StatementRefused) as refused:
        world.session(bob).decide_operation(second.operation_id, approval)
    assert refused.value.reason == "wrong-operation"
    with pytest.raises(StatementRefused) as refused:
        world.session(colleague(world, "carol")).decide_operation(first.operation_id, approval)
    assert refused.value.reason == "wrong-certificate"
    for _ in range(3):
        world.session(bob).decide_operation(first.operation_id, approval)
    assert world.op.get_operation(first.operation_id)[0].state is OperationState.PROPOSED
    changed = replace(first, reason="and something else")  # the same id, other words
    with pytest.raises(StatementRefused):
        world.session(bob).decide_operation(first.operation_id, signed(world, bob, changed, Verdict.APPROVE))
    with pytest.raises(Conflict) as again:
        propose(world, world.operator, first)
    assert again.value.reason == "replayed"


def test_a_proposal_s_signature_is_not_an_approval_nor_the_other_way_round(world_with: WorldWith) -> None:
    world = world_with(four_eyes())
    site, bob = _held(world), colleague(world, "bob")
    wanted = operation(world, world.operator, RELEASE_HOLD, release_parameters(site.target))
    for verdict in (Verdict.APPROVE, Verdict.DENY):
        with pytest.raises(StatementRefused) as refused:
            world.op.propose_operation(wanted.to_payload(), signed(world, world.operator, wanted, verdict))
        assert refused.value.reason == "wrong-verdict"
    propose(world, world.operator, wanted)
    with pytest.raises(StatementRefused):
        decide(world, bob, wanted, Verdict.PROPOSE)


def test_an_old_signature_and_an_expired_operation_are_refused(world_with: WorldWith) -> None:
    world = world_with(four_eyes())
    site, bob = _held(world), colleague(world, "bob")
    stale = operation(world, world.operator, RELEASE_HOLD, release_parameters(site.target))
    proposal = signed(world, world.operator, stale, Verdict.PROPOSE)
    wanted = operation(world, world.operator, RELEASE_HOLD, release_parameters(site.target))
    propose(world, world.operator, wanted)
    approval = signed(world, bob, wanted, Verdict.APPROVE)
    world.clock.advance(timedelta(minutes=6))
    for act in (
        lambda: world.op.propose_operation(stale.to_payload(), proposal),
        lambda: world.session(bob).decide_operation(wanted.operation_id, approval),
    ):
        with pytest.raises(StatementRefused) as refused:
            act()
        assert refused.value.reason == "expired"
    world.clock.advance(timedelta(days=1))
    with pytest.raises((StatementRefused, Conflict)) as ended:
        decide(world, colleague(world, "late"), wanted)
    assert "expired" in ended.value.reason
    assert _standing(world, site) is Standing.HELD


def test_an_operation_that_never_ends_is_refused(world_with: WorldWith) -> None:
    world = world_with(four_eyes())
    site, now = _held(world), world.clock.now()
    wanted = operation(
        world,
        world.operator,
        RELEASE_HOLD,
        release_parameters(site.target),
        expires_at=now + timedelta(days=365),
    )
    with pytest.raises(Malformed, match="expire"):
        propose(world, world.operator, wanted)


def test_any_operator_ends_an_operation_and_it_stays_ended(world_with: WorldWith) -> None:
    world = world_with(four_eyes(operations=2))
    site, bob, carol = _held(world), colleague(world, "bob"), colleague(world, "carol")
    wanted = operation(world, world.operator, RELEASE_HOLD, release_parameters(site.target))
    propose(world, world.operator, wanted)
    decide(world, bob, wanted)
    assert decide(world, carol, wanted, Verdict.DENY).state is OperationState.DENIED
    for member, verdict in ((carol, Verdict.APPROVE), (bob, Verdict.DENY)):
        with pytest.raises(Conflict) as refused:
            decide(world, member, wanted, verdict)
        assert refused.value.reason == "operation-denied"
    assert _standing(world, site) is Standing.HELD


def test_two_last_approvals_execute_once(each_world_with: WorldWith) -> None:
    world = each_world_with(four_eyes())
    members = [colleague(world, name) for name in ("bob", "carol")]
    count = _Count()
    world.authority.operations.register(count)
    wanted = operation(world, world.operator, "count", {})
    propose(world, world.operator, wanted)

    def act(member: Member) -> None:
        with suppress(Conflict):
            decide(world, member, wanted)

    threads = [threading.Thread(target=act, args=(member,)) for member in members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (count.executed, count.followed) == (1, 1)
    assert [e.step for e in _entries(world)].count(OperationWord.EXECUTED) == 1


class _Count:
    """A kind that counts what happens to it; it fails where it is told to."""

    kind = "count"

    def __init__(self) -> None:
        self.executed = self.followed = 0
        self.fails = False

    def check(self, _operation: Operation, _work: Work) -> None: ...

    def execute(self, _operation: Operation, _work: Work, *, actor: VerifiedCertificate) -> Executed:
        if self.fails:
            raise Conflict("not now")
        self.executed += 1
        return Executed(result={"by": str(actor.spiffe_id)}, then=self._follow)

    def _follow(self) -> None:
        self.followed += 1


def test_an_execution_that_fails_undoes_the_approval_and_can_be_tried_again(world_with: WorldWith) -> None:
    world = world_with(four_eyes())
    bob, count = colleague(world, "bob"), _Count()
    world.authority.operations.register(count)
    wanted = operation(world, world.operator, "count", {})
    propose(world, world.operator, wanted)
    count.fails = True
    with pytest.raises(Conflict, match="not now"):
        decide(world, bob, wanted)
    assert len(world.op.get_operation(wanted.operation_id)[1]) == 1
    count.fails = False
    assert decide(world, bob, wanted).state is OperationState.EXECUTED
    with pytest.raises(Conflict, match="two"):
        world.authority.operations.register(_Count())


def test_an_unknown_kind_is_refused_and_so_are_parameters_that_are_not_its_own(world_with: WorldWith) -> None:
    world = world_with(ApprovalPolicy())
    site = _held(world)
    with pytest.raises(Malformed) as refused:
        propose(world, world.operator, operation(world, world.operator, "format-disk", {}))
    assert refused.value.reason == "unknown-type"
    for parameters in (
        {},
        {"name": "participant/site-a", "run": "1"},
        {"name": "participant/site-a", "more": True},
        {"name": "coordinator/x"},
        {"name": "wizard/x"},
        {"run": "01"},
        {"run": 1},
    ):
        with pytest.raises(Malformed):
            propose(world, world.operator, operation(world, world.operator, RELEASE_HOLD, parameters))
    unknown = release_parameters(RevocationTarget(name=(Role.PARTICIPANT, Name("nobody"))))
    with pytest.raises(NotFound):
        propose(world, world.operator, operation(world, world.operator, RELEASE_HOLD, unknown))
    assert _standing(world, site) is Standing.HELD


def test_nobody_proposes_in_another_s_name_and_nobody_but_operators_at_all(world_with: WorldWith) -> None:
    world = world_with(ApprovalPolicy())
    site, bob = _held(world), colleague(world, "bob")
    parameters = release_parameters(site.target)
    wanted = operation(world, bob, RELEASE_HOLD, parameters)
    with pytest.raises(StatementRefused):
        world.op.propose_operation(wanted.to_payload(), signed(world, bob, wanted, Verdict.PROPOSE))
    aggregator = world.join("main", Role.AGGREGATOR)
    with pytest.raises(Malformed):
        operation(world, aggregator, RELEASE_HOLD, parameters)
    with pytest.raises(PermissionDenied):
        world.session(aggregator).propose_operation(b"{}", b"{}")


def test_an_operator_s_proposals_are_bounded(world_with: WorldWith, monkeypatch: pytest.MonkeyPatch) -> None:
    from fltrust.coordinator import operations

    monkeypatch.setattr(operations, "MAX_PROPOSED", 2)
    world = world_with(four_eyes())
    site = _held(world)
    for _ in range(2):
        propose(
            world,
            world.operator,
            operation(world, world.operator, RELEASE_HOLD, release_parameters(site.target)),
        )
    more = operation(world, world.operator, RELEASE_HOLD, release_parameters(site.target))
    with pytest.raises(LimitExceeded):
        propose(world, world.operator, more)


def test_with_a_quorum_nothing_goes_around_it_and_stopping_somebody_never_waits(
    world_with: WorldWith,
) -> None:
    world = world_with(four_eyes())
    site = _held(world)
    for act in (
        lambda: world.op.release(site.target),
        lambda: world.op.revoke(RevocationTarget(run=RunId(1)), reason=RevocationReason.UNSPECIFIED),
    ):
        with pytest.raises(PermissionDenied) as refused:
            act()
        assert refused.value.reason == "quorum-required"
    world.op.revoke(site.target, reason=RevocationReason.KEY_COMPROMISE)
    assert _standing(world, site) is Standing.REVOKED


def _bulk(*names: str, **options: object) -> dict[str, object]:
    return BulkRevocation(
        names=tuple((Role.PARTICIPANT, Name(name)) for name in names),
        reason=RevocationReason.CESSATION_OF_OPERATION,
        **options,  # type: ignore[arg-type]
    ).to_parameters()


def test_many_are_revoked_at_once_or_nobody_is(each_world_with: WorldWith) -> None:
    world = each_world_with(four_eyes())
    bob = colleague(world, "bob")
    sites = [world.join(f"site-{n}") for n in range(3)]
    with pytest.raises(NotFound):
        propose(
            world,
            world.operator,
            operation(world, world.operator, BULK_REVOKE, _bulk("site-0", "site-9", atomic=True)),
        )
    wanted = operation(world, world.operator, BULK_REVOKE, _bulk("site-0", "site-1", "site-2"))
    propose(world, world.operator, wanted)
    decide(world, bob, wanted)
    assert {_standing(world, site) for site in sites} == {Standing.REVOKED}


def test_itemised_those_that_can_be_are_revoked_and_the_others_are_named(world_with: WorldWith) -> None:
    world = world_with(ApprovalPolicy())
    site = world.join("site-0")
    wanted = operation(world, world.operator, BULK_REVOKE, _bulk("site-0", "site-9", atomic=False))
    done = propose(world, world.operator, wanted)
    result = json.loads(done.result or b"")
    assert result["revoked"] == 1
    assert result["failed"] == [{"name": "participant/site-9", "reason": "not-found"}]
    assert _standing(world, site) is Standing.REVOKED


def test_a_bulk_revocation_names_each_once_and_not_too_many() -> None:
    for names in (("a", "a"), (), tuple(f"s{n}" for n in range(1_001))):
        with pytest.raises(Malformed):
            _bulk(*names)
