from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest
from authority_world import DOMAIN, Member, World, request
from registrar_world import ask, colleague, four_eyes, key_pair

from fltrust.enrollment.approvals import ApprovalPolicy
from fltrust.enrollment.requests import Assignment, RequestState
from fltrust.enrollment.types import EnrollmentProtocol, Issued, Pending
from fltrust.errors import (
    ApprovalPending,
    Conflict,
    LimitExceeded,
    Malformed,
    NotFound,
    PermissionDenied,
    RequestDenied,
    Revoked,
    TokenRefused,
)
from fltrust.identity import Name, Role
from fltrust.keys import generate
from fltrust.pki import create_csr
from fltrust.pki.verify import verify_certificate
from fltrust.revocation.events import RevocationReason
from fltrust.tlog.approvals import EnrollmentRequestEntry, RequestWord
from fltrust.tlog.entries import LogKind, parse_entry

WorldWith = Callable[[ApprovalPolicy], World]
MANUAL = ApprovalPolicy(is_manual_taken=True)
ONE = ApprovalPolicy(roles={Role.PARTICIPANT: 1})
SITE = Assignment(role=Role.PARTICIPANT, name=Name("site-a"))


def _pending(outcome: object) -> str:
    assert isinstance(outcome, Pending)
    return outcome.request_id


def _issued(outcome: object) -> Issued:
    assert isinstance(outcome, Issued)
    return outcome


def _steps(world: World) -> list[RequestWord]:
    with world.authority.ledger.reading() as tx:
        found = tx.tlog.find(kinds=(LogKind.ENROLLMENT_REQUEST,))
    entries = [parse_entry(entry.data) for entry in found]
    return [entry.step for entry in entries if isinstance(entry, EnrollmentRequestEntry)]


def test_a_token_s_request_waits_until_another_operator_approves_it_and_is_issued_when_collected(
    each_world_with: WorldWith,
) -> None:
    world = each_world_with(ONE)
    signer, node = key_pair()
    wanted = request(world.token("site-a"), signer, node)
    request_id = _pending(world.authority.submit(wanted))
    assert _pending(world.authority.collect(request_id, wanted.csr_der)) == request_id
    view = world.session(colleague(world, "bob")).approve_request(request_id, reason="we know them")
    assert (view.request.state, view.count, view.request.needed) == (RequestState.APPROVED, 1, 1)
    issued = _issued(world.authority.collect(request_id, wanted.csr_der))
    found = verify_certificate(issued.chain_der, bundle=world.bundle, at=world.clock.now())
    assert (str(found.spiffe_id.name), found.key_id) == ("site-a", signer.key_id)
    assert world.op.get_request(request_id).request.state is RequestState.DELIVERED
    assert _steps(world) == [RequestWord.SUBMITTED, RequestWord.APPROVED, RequestWord.ISSUED]


def test_a_caller_that_cannot_wait_is_told_the_id_in_the_error(world_with: WorldWith) -> None:
    world = world_with(ONE)
    with pytest.raises(ApprovalPending) as told:
        world.authority.enroll(request(world.token("site-a"), *key_pair()))
    assert world.op.get_request(told.value.request_id).request.state is RequestState.CHECKED


def test_the_same_request_sent_again_is_the_same_request_and_spends_nothing(world_with: WorldWith) -> None:
    world = world_with(ONE)
    wanted = request(world.token("site-a"), *key_pair())
    request_id = _pending(world.authority.submit(wanted))
    assert _pending(world.authority.submit(wanted)) == request_id
    world.session(colleague(world, "bob")).approve_request(request_id, reason="yes")
    issued = _issued(world.authority.submit(wanted))
    assert _issued(world.authority.submit(wanted)).chain_der == issued.chain_der


def test_a_token_whose_request_waits_is_spent_for_everybody_else(world_with: WorldWith) -> None:
    world = world_with(ONE)
    token = world.token("site-a")
    world.authority.submit(request(token, *key_pair()))
    with pytest.raises(TokenRefused) as refused:
        world.authority.submit(request(token, *key_pair()))
    assert refused.value.reason == "token-used"


def test_who_made_the_token_cannot_approve_what_it_earns(world_with: WorldWith) -> None:
    world = world_with(ONE)
    request_id = _pending(world.authority.submit(request(world.token("site-a"), *key_pair())))
    with pytest.raises(PermissionDenied) as refused:
        world.op.approve_request(request_id, reason="my own")
    assert refused.value.reason == "four-eyes"
    assert world.op.get_request(request_id).count == 0


def test_an_operator_who_makes_a_second_self_needs_others_to_let_it_in(world_with: WorldWith) -> None:
    """Self-approval under another name: with a quorum for operations, operators are enrolled by a quorum."""
    world = world_with(four_eyes(operations=1))
    second_self = generate()
    request_id = _pending(
        world.authority.submit(request(world.token("root-2", Role.OPERATOR), second_self, None))
    )
    with pytest.raises(PermissionDenied, match="another operator"):
        world.op.approve_request(request_id, reason="that is me as well")
    taking_over = world.token("bob", Role.OPERATOR, replace=True)
    colleague(world, "bob")
    assert isinstance(world.authority.submit(request(taking_over, generate(), None)), Pending)


def test_each_operator_counts_once_whatever_certificates_they_use(world_with: WorldWith) -> None:
    world = world_with(ApprovalPolicy(roles={Role.PARTICIPANT: 2}))
    request_id = _pending(world.authority.submit(request(world.token("site-a"), *key_pair())))
    bob = colleague(world, "bob")
    again = world.renew(bob)
    for member in (bob, again, bob):
        view = world.session(member).approve_request(request_id, reason="and again")
        assert (view.count, view.request.state) == (1, RequestState.CHECKED)
    view = world.session(colleague(world, "carol")).approve_request(request_id, reason="now it is two")
    assert view.request.state is RequestState.APPROVED


def test_a_revoked_operator_approves_nothing_and_what_it_approved_counts_no_more(
    world_with: WorldWith,
) -> None:
    world = world_with(ONE)
    wanted = request(world.token("site-a"), *key_pair())
    request_id = _pending(world.authority.submit(wanted))
    bob = colleague(world, "bob")
    world.session(bob).approve_request(request_id, reason="yes")
    world.revoke(bob)
    with pytest.raises(Revoked):
        world.session(bob).approve_request(request_id, reason="still yes")
    assert isinstance(world.authority.collect(request_id, wanted.csr_der), Pending)
    assert world.op.get_request(request_id).request.state is RequestState.CHECKED
    assert _steps(world)[-1] is RequestWord.REOPENED
    world.session(colleague(world, "carol")).approve_request(request_id, reason="I, too, and I am still here")
    assert isinstance(world.authority.collect(request_id, wanted.csr_der), Issued)


def test_an_approval_with_a_certificate_that_is_on_hold_counts_no_more(world_with: WorldWith) -> None:
    world = world_with(ONE)
    wanted = request(world.token("site-a"), *key_pair())
    request_id = _pending(world.authority.submit(wanted))
    bob = colleague(world, "bob")
    world.session(bob).approve_request(request_id, reason="yes")
    world.op.hold(
        replace(bob.target, name=None, serial=bob.certificate.serial), reason=RevocationReason.UNSPECIFIED
    )
    assert isinstance(world.authority.collect(request_id, wanted.csr_der), Pending)


def test_two_last_approvals_at_the_same_time_issue_once(each_world_with: WorldWith) -> None:
    world = each_world_with(ApprovalPolicy(roles={Role.PARTICIPANT: 2}))
    wanted = request(world.token("site-a"), *key_pair())
    request_id = _pending(world.authority.submit(wanted))
    members = [colleague(world, name) for name in ("bob", "carol", "dave")]
    world.session(members[0]).approve_request(request_id, reason="first")
    outcomes: list[object] = []

    def act(member: Member) -> None:
        with suppress(Conflict):  # the other's was enough, and it came for the certificate
            world.session(member).approve_request(request_id, reason="last")
        outcomes.append(world.authority.collect(request_id, wanted.csr_der))

    threads = [threading.Thread(target=act, args=(member,)) for member in members[1:]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    chains = {outcome.chain_der for outcome in outcomes if isinstance(outcome, Issued)}
    assert len(outcomes) == 2
    assert len(chains) == 1
    assert _steps(world).count(RequestWord.ISSUED) == 1


def test_an_expired_request_is_neither_approved_nor_issued(world_with: WorldWith) -> None:
    world = world_with(replace(ONE, decide_within=timedelta(hours=1)))
    bob = colleague(world, "bob")
    late = request(world.token("site-a"), *key_pair())
    late_id = _pending(world.authority.submit(late))
    left = request(world.token("site-b"), *key_pair())
    left_id = _pending(world.authority.submit(left))
    world.session(bob).approve_request(left_id, reason="yes")
    world.clock.advance(timedelta(hours=1))
    with pytest.raises(Conflict) as refused:
        world.session(bob).approve_request(late_id, reason="at last")
    assert refused.value.reason == "request-expired"
    for request_id, wanted in ((late_id, late), (left_id, left)):  # nobody decided; nobody came for it
        with pytest.raises(RequestDenied) as denied:
            world.authority.collect(request_id, wanted.csr_der)
        assert denied.value.reason == "request-expired"
    world.op.list_requests()
    assert _steps(world).count(RequestWord.EXPIRED) == 2


def test_a_denial_is_final_also_of_what_was_approved_and_its_reason_reaches_the_site(
    world_with: WorldWith,
) -> None:
    world = world_with(ONE)
    bob = colleague(world, "bob")
    wanted = request(world.token("site-a"), *key_pair())
    request_id = _pending(world.authority.submit(wanted))
    world.session(bob).approve_request(request_id, reason="yes")
    world.op.deny_request(request_id, reason="wrong clinic")
    with pytest.raises(RequestDenied, match="wrong clinic"):
        world.authority.collect(request_id, wanted.csr_der)
    for act in (world.session(bob).approve_request, world.op.deny_request):
        with pytest.raises(Conflict) as refused:
            act(request_id, reason="after all")
        assert refused.value.reason == "request-denied"
    # The token is spent with it: asking again takes a new decision.
    with pytest.raises(TokenRefused):
        world.authority.submit(wanted)


def test_what_was_issued_cannot_be_denied_only_revoked(world_with: WorldWith) -> None:
    world = world_with(ONE)
    wanted = request(world.token("site-a"), *key_pair())
    request_id = _pending(world.authority.submit(wanted))
    world.session(colleague(world, "bob")).approve_request(request_id, reason="yes")
    world.authority.collect(request_id, wanted.csr_der)
    with pytest.raises(Conflict) as refused:
        world.op.deny_request(request_id, reason="too late")
    assert refused.value.reason == "request-delivered"
    assert "revoke" in str(refused.value.hint)


def test_a_different_key_collects_nothing_and_neither_does_a_guess(world_with: WorldWith) -> None:
    world = world_with(ONE)
    signer, node = key_pair()
    wanted = request(world.token("site-a"), signer, node)
    request_id = _pending(world.authority.submit(wanted))
    world.session(colleague(world, "bob")).approve_request(request_id, reason="yes")
    for guess, csr in (
        (request_id, create_csr(generate())),
        ("0" * 32, wanted.csr_der),
        ("", wanted.csr_der),
        (request_id.upper(), wanted.csr_der),
    ):
        with pytest.raises(NotFound) as refused:
            world.authority.collect(guess, csr)
        assert "this id and this key" in refused.value.message  # it does not say which of the two
    # Another request for the same key is as good: what counts is who holds the key.
    assert isinstance(world.authority.collect(request_id, create_csr(signer)), Issued)


def test_an_approval_is_for_one_request_and_no_other(world_with: WorldWith) -> None:
    world = world_with(ONE)
    first = _pending(world.authority.submit(request(world.token("site-a"), *key_pair())))
    other = request(world.token("site-b"), *key_pair())
    second = _pending(world.authority.submit(other))
    world.session(colleague(world, "bob")).approve_request(first, reason="this one")
    assert isinstance(world.authority.collect(second, other.csr_der), Pending)


def test_a_name_that_is_revoked_takes_its_open_requests_with_it(world_with: WorldWith) -> None:
    world = world_with(replace(ONE, replace=1, roles={}))
    site = world.join("site-a")
    wanted = request(world.token("site-a", replace=True), *key_pair())
    request_id = _pending(world.authority.submit(wanted))
    world.session(colleague(world, "bob")).approve_request(request_id, reason="new machine")
    world.revoke(site)
    with pytest.raises(RequestDenied, match="revoked"):
        world.authority.collect(request_id, wanted.csr_der)


def test_what_could_not_be_issued_is_refused_before_the_token_is_spent(world_with: WorldWith) -> None:
    world = world_with(ONE)
    token = world.token("site-a")
    with pytest.raises(Malformed, match="node key"):
        world.authority.submit(request(token, generate(), None))
    assert isinstance(world.authority.submit(request(token, *key_pair())), Pending)


def test_an_approved_request_whose_name_was_taken_meanwhile_is_not_issued(world_with: WorldWith) -> None:
    world = world_with(ApprovalPolicy(evidence={"join-token": 1}))
    bob = colleague(world, "bob")
    pair = [request(world.token("site-a"), *key_pair()) for _ in range(2)]
    ids = [_pending(world.authority.submit(wanted)) for wanted in pair]
    for request_id in ids:
        world.session(bob).approve_request(request_id, reason="yes")
    assert isinstance(world.authority.collect(ids[0], pair[0].csr_der), Issued)
    with pytest.raises(Conflict) as refused:
        world.authority.collect(ids[1], pair[1].csr_der)
    assert refused.value.reason == "already-enrolled"


# Without evidence.


def test_a_site_without_a_token_is_given_its_name_by_an_operator(world_with: WorldWith) -> None:
    world = world_with(MANUAL)
    signer, node = key_pair()
    wanted = ask(signer, node, note="clinic A, ring Dr. Smith")
    request_id = _pending(world.authority.submit(wanted))
    (view,) = world.op.list_requests(open_only=True)
    assert (view.request.state, view.request.key_id) == (RequestState.SUBMITTED, signer.key_id)
    assert view.request.claims == {"note": "clinic A, ring Dr. Smith"}
    assert _steps(world) == []  # what anybody can send does not reach the log by itself
    world.op.approve_request(request_id, reason="rang her, the key is hers", assignment=SITE)
    issued = _issued(world.authority.collect(request_id, wanted.csr_der))
    assert str(issued.spiffe_id.name) == "site-a"
    record = world.op.get_enrollment(issued.spiffe_id)
    assert (record.evidence, record.enrolled_by) == ("manual", world.operator.spiffe_id)


def test_requests_without_evidence_are_refused_unless_they_are_asked_for(world: World) -> None:
    with pytest.raises(PermissionDenied) as refused:
        world.authority.submit(ask(*key_pair()))
    assert refused.value.reason == "manual-refused"


def test_everybody_approves_the_same_name(world_with: WorldWith) -> None:
    world = world_with(replace(MANUAL, evidence={"manual": 2}))
    request_id = _pending(world.authority.submit(ask(*key_pair())))
    bob, carol = colleague(world, "bob"), colleague(world, "carol")
    world.session(bob).approve_request(request_id, reason="a", assignment=SITE)
    for other in (
        replace(SITE, name=Name("site-b")),
        replace(SITE, replace=True),
    ):
        with pytest.raises(Conflict) as refused:
            world.session(carol).approve_request(request_id, reason="b", assignment=other)
        assert refused.value.reason == "request-assigned"
    with pytest.raises(Malformed, match="name"):
        world.session(carol).approve_request(request_id, reason="whatever it is")
    view = world.session(carol).approve_request(request_id, reason="a, indeed", assignment=SITE)
    assert view.request.state is RequestState.APPROVED


def test_the_name_that_is_given_brings_its_own_rules(world_with: WorldWith) -> None:
    world = world_with(replace(MANUAL, roles={Role.OPERATOR: 2}))
    request_id = _pending(world.authority.submit(ask(generate())))
    made = Assignment(role=Role.OPERATOR, name=Name("dave"))
    view = world.op.approve_request(request_id, reason="new colleague", assignment=made)
    assert (view.request.needed, view.request.state) == (3, RequestState.CHECKED)
    second = _pending(world.authority.submit(ask(generate())))
    server = Assignment(role=Role.SERVER, name=Name("models"))
    with pytest.raises(Malformed, match="DNS names"):
        world.op.approve_request(second, reason="a server", assignment=server)


def test_a_name_is_not_given_where_evidence_gives_one(world_with: WorldWith) -> None:
    world = world_with(ONE)
    request_id = _pending(world.authority.submit(request(world.token("site-a"), *key_pair())))
    other = Assignment(role=Role.PARTICIPANT, name=Name("site-z"))
    with pytest.raises(Malformed, match="no name"):
        world.session(colleague(world, "bob")).approve_request(request_id, reason="yes", assignment=other)


def test_one_source_cannot_fill_the_list(each_world_with: WorldWith, monkeypatch: pytest.MonkeyPatch) -> None:
    from fltrust.coordinator import requests

    monkeypatch.setattr(requests, "MAX_OPEN_OF_SOURCE", 2)
    monkeypatch.setattr(requests, "MAX_OPEN", 3)
    world = each_world_with(replace(MANUAL, decide_within=timedelta(hours=1)))
    for source in ("a", "a", "b"):
        world.authority.submit(ask(generate(), source=source))
    for source in ("a", "c"):  # its own share; everybody's
        with pytest.raises(LimitExceeded) as refused:
            world.authority.submit(ask(generate(), source=source))
        assert refused.value.reason == "too-many-requests"
    # Whom an operator granted evidence is not kept out by strangers.
    world.join("site-a")
    world.clock.advance(timedelta(hours=1))
    assert isinstance(world.authority.submit(ask(generate(), source="a")), Pending)


def test_a_reason_is_asked_of_everybody(world_with: WorldWith) -> None:
    world = world_with(ONE)
    request_id = _pending(world.authority.submit(request(world.token("site-a"), *key_pair())))
    bob = world.session(colleague(world, "bob"))
    for reason in ("", "   ", "x" * 501, "two\nlines", "\x1b[2J"):
        with pytest.raises(Malformed, match="reason"):
            bob.approve_request(request_id, reason=reason)
        with pytest.raises(Malformed, match="reason"):
            bob.deny_request(request_id, reason=reason)


def test_only_operators_decide(world_with: WorldWith) -> None:
    world = world_with(MANUAL)
    request_id = _pending(world.authority.submit(ask(*key_pair())))
    aggregator = world.session(world.join("main", Role.AGGREGATOR))
    for act in (
        lambda: aggregator.approve_request(request_id, reason="x", assignment=SITE),
        lambda: aggregator.deny_request(request_id, reason="x"),
        lambda: aggregator.list_requests(),
        lambda: aggregator.get_request(request_id),
    ):
        with pytest.raises(PermissionDenied):
            act()


def test_the_policy_asks_the_most_that_any_rule_asks() -> None:
    from fltrust.enrollment.types import Approval

    policy = ApprovalPolicy(
        operations=3,
        roles={Role.DEVICE: 1},
        evidence={"oidc": 2},
        protocols={EnrollmentProtocol.SCEP: 4},
        replace=5,
    )
    device = Approval(Role.DEVICE, Name("d"), False)
    grpc, scep = EnrollmentProtocol.GRPC, EnrollmentProtocol.SCEP
    assert policy.needed(device, evidence="join-token", protocol=grpc) == 1
    assert policy.needed(device, evidence="oidc", protocol=grpc) == 2
    assert policy.needed(device, evidence="oidc", protocol=scep) == 4
    assert policy.needed(replace(device, replace=True), evidence="oidc", protocol=scep) == 5
    assert policy.needed(replace(device, role=Role.OPERATOR), evidence="join-token", protocol=grpc) == 3
    assert policy.needed(replace(device, role=Role.AGGREGATOR), evidence="join-token", protocol=grpc) == 0
    assert policy.needed(None, evidence="manual", protocol=grpc) == 1


def test_requests_survive_a_restart(each_world_with: WorldWith) -> None:
    world = each_world_with(ONE)
    wanted = request(world.token("site-a"), *key_pair())
    request_id = _pending(world.authority.submit(wanted))
    world.session(colleague(world, "bob")).approve_request(request_id, reason="yes")
    world.reopen()
    assert isinstance(world.authority.collect(request_id, wanted.csr_der), Issued)
    world.reopen()
    world.authority.enroller.requests.published_size = lambda: 10_000
    world.op.list_requests()
    assert world.op.get_request(request_id).request.state is RequestState.PUBLISHED
    assert isinstance(world.authority.collect(request_id, wanted.csr_der), Issued)
    world.clock.advance(timedelta(hours=2))
    with pytest.raises(RequestDenied, match="run out"):
        world.authority.collect(request_id, wanted.csr_der)


def test_the_log_has_a_digest_of_who_said_what_and_why(world_with: WorldWith) -> None:
    from fltrust.coordinator.approval_book import decision_digest, request_subject

    world = world_with(ONE)
    request_id = _pending(world.authority.submit(request(world.token("site-a"), *key_pair())))
    bob = colleague(world, "bob")
    view = world.session(bob).approve_request(request_id, reason="known since 1999")
    with world.authority.ledger.reading() as tx:
        found = tx.tlog.find(subject=request_subject(request_id))
    entry = parse_entry(found[-1].data)
    assert isinstance(entry, EnrollmentRequestEntry)
    assert entry.decision == decision_digest(request_id, view.decisions[0])
    assert str(entry.operator) == f"spiffe://{DOMAIN}/operator/bob"
    assert b"1999" not in found[-1].data
    assert request_id.encode() not in found[-1].data
