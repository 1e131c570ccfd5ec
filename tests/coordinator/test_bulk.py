from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from authority_world import DOMAIN, Exchange, Member, World, request
from registrar_world import colleague

from fltrust.enrollment.approvals import ApprovalPolicy
from fltrust.enrollment.bulk import MAX_ITEMS, BulkEvidence, BulkItem, BulkResult
from fltrust.enrollment.challenge import node_key_challenge
from fltrust.enrollment.inventory import InventoryEntry, InventoryFilter
from fltrust.enrollment.renewal_proof import renewal_challenge
from fltrust.enrollment.requests import Assignment
from fltrust.errors import Conflict, LimitExceeded, Malformed, PermissionDenied, Revoked
from fltrust.identity import Name, Role, SpiffeId
from fltrust.keys import FileSigner, generate, spki_der
from fltrust.pki import create_csr
from fltrust.pki.verify import verify_certificate
from fltrust.revocation.events import EventKind, RevocationReason
from fltrust.tlog.entries import LogKind

WorldWith = Callable[[ApprovalPolicy], World]


def _item(
    name: str,
    role: Role = Role.PARTICIPANT,
    *,
    signer: FileSigner | None = None,
    node: FileSigner | None = None,
    **options: object,
) -> BulkItem:
    csr = create_csr(signer or generate())
    who = Assignment(role=role, name=Name(name), **options)  # type: ignore[arg-type]
    if role is not Role.PARTICIPANT:
        return BulkItem(who=who, csr_der=csr)
    node = node or generate()
    return BulkItem(
        who=who,
        csr_der=csr,
        node_key=spki_der(node.public_key),
        node_key_proof=node.sign(node_key_challenge(csr, BulkEvidence())),
    )


def _reasons(results: tuple[BulkResult, ...]) -> list[str | None]:
    return [None if result.refused is None else result.refused.reason for result in results]


def _site(n: int | str) -> SpiffeId:
    return SpiffeId.of(DOMAIN, Role.PARTICIPANT, f"site-{n}")


def test_many_are_enrolled_in_one_call_each_as_if_alone(each_world_with: WorldWith) -> None:
    world = each_world_with(ApprovalPolicy())
    before = world.authority.head
    items = [_item(f"site-{n}") for n in range(130)]  # more than stand in one transaction
    items += [_item("main", Role.AGGREGATOR), _item("www", Role.SERVER, dns_names=("www.example.org",))]
    answer = world.op.enroll_bulk(items, atomic=False)
    assert _reasons(answer.results) == [None] * 132
    for item, result in zip(items, answer.results, strict=True):
        assert result.certificate is not None
        chain = (result.certificate, *answer.issuers)
        found = verify_certificate(chain, bundle=world.bundle, at=world.clock.now())
        assert (found.spiffe_id.role, found.spiffe_id.name) == (item.who.role, item.who.name)
        world.authority.judge(found)
    events = world.authority.events(before, 1000, reader=None)
    assert [e.kind for e in events] == [EventKind.ENROLLED] * 132
    assert {e.actor for e in events} == {world.operator.spiffe_id}
    with world.authority.ledger.reading() as tx:
        logged = tx.tlog.find(subject=str(_site(129)))
    assert [entry.kind for entry in logged] == [LogKind.CERTIFICATE, LogKind.TRUST_EVENT]
    assert world.op.get_enrollment(_site(3)).evidence == "bulk"
    world.reopen()
    assert len(world.op.list_enrollments()) == 133


def test_the_same_items_again_give_the_same_certificates(world: World) -> None:
    items = [_item(f"site-{n}") for n in range(3)]
    first = world.op.enroll_bulk(items[:2], atomic=False)
    again = world.op.enroll_bulk(items, atomic=False)  # it was cut off after two
    assert again.results[:2] == first.results
    assert again.results[2].certificate is not None
    assert len(world.op.list_enrollments()) == 4


def test_itemised_each_that_is_refused_says_why_and_the_others_are_enrolled(world: World) -> None:
    taken = world.join("site-taken")
    assert taken.node is not None
    used, node = generate(), generate()
    bad_proof = replace(_item("site-proof"), node_key_proof=generate().sign(b"something else"))
    items = [
        _item("site-0", signer=used, node=node),
        _item("site-0"),  # twice in one call
        _item("site-taken"),  # enrolled, and not to be replaced
        _item("site-1", signer=used),  # a key of another in this call
        _item("site-2", node=node),  # a node key of another in this call
        _item("site-3", node=taken.node),  # a node key of somebody enrolled
        bad_proof,
        replace(_item("site-4"), node_key=None, node_key_proof=None),
        replace(_item("site-5"), csr_der=b"0"),
        _item("www", Role.SERVER),  # no DNS name
        _item("site-taken-2"),
    ]
    answer = world.op.enroll_bulk(items, atomic=False)
    assert _reasons(answer.results) == [
        None,
        "twice",
        "already-enrolled",
        "key-reused",
        "node-key-taken",
        "node-key-taken",
        "signature-invalid",
        "malformed",
        "malformed",
        "dns-names",
        None,
    ]
    names = {str(e.spiffe_id.name) for e in world.op.list_enrollments()}
    assert names == {"root", "site-0", "site-taken", "site-taken-2"}


def test_atomic_the_first_refusal_undoes_all(world: World) -> None:
    world.join("site-taken")
    before = world.authority.head
    items = [_item("site-0"), _item("site-1"), _item("site-taken")]
    with pytest.raises(Conflict) as refused:
        world.op.enroll_bulk(items, atomic=True)
    assert refused.value.reason == "already-enrolled"
    assert world.authority.head == before
    with world.authority.ledger.reading() as tx:
        assert tx.enrollments.get(_site(0)) is None
    answer = world.op.enroll_bulk(items[:2], atomic=True)
    assert _reasons(answer.results) == [None, None]


def test_a_name_that_was_revoked_comes_back_only_with_replace(world: World) -> None:
    site = world.join("site-0")
    world.revoke(site)
    answer = world.op.enroll_bulk([_item("site-0")], atomic=False)
    assert _reasons(answer.results) == ["revoked"]
    answer = world.op.enroll_bulk([_item("site-0", replace=True)], atomic=False)
    assert _reasons(answer.results) == [None]


def test_a_revoked_operator_enrolls_nobody(world: World) -> None:
    session = world.op
    world.session(colleague(world, "bob")).revoke(world.operator.target, reason=_reason())
    with pytest.raises(Revoked):
        session.enroll_bulk([_item("site-0")], atomic=False)


def _reason() -> RevocationReason:
    return RevocationReason.KEY_COMPROMISE


def test_where_the_policy_asks_for_others_bulk_waits_for_them_and_resumes(world_with: WorldWith) -> None:
    world = world_with(ApprovalPolicy(evidence={"bulk": 1}))
    items = [_item(f"site-{n}") for n in range(2)]
    waiting = world.op.enroll_bulk(items, atomic=False).results
    ids = [result.request_id for result in waiting]
    assert None not in ids
    assert world.op.enroll_bulk(items, atomic=False).results == waiting
    with pytest.raises(PermissionDenied):
        world.op.approve_request(str(ids[0]), reason="my own file")
    world.session(colleague(world, "bob")).approve_request(str(ids[0]), reason="checked the list")
    first, second = world.op.enroll_bulk(items, atomic=False).results
    assert first.certificate is not None
    assert second.request_id == ids[1]


def test_bulk_is_bounded_and_for_operators(world: World) -> None:
    item = _item("site-0")
    with pytest.raises(LimitExceeded):
        world.op.enroll_bulk([item] * (MAX_ITEMS + 1), atomic=False)
    with pytest.raises(LimitExceeded):
        world.op.create_tokens([item.who] * (MAX_ITEMS + 1), ttl=timedelta(minutes=1))
    session = world.session(world.join("main", Role.AGGREGATOR))
    for act in (session.enroll_bulk, session.renew_bulk):
        with pytest.raises(PermissionDenied):
            act([item], atomic=False)


def test_tokens_are_made_for_all_or_for_nobody(world: World) -> None:
    wanted = [Assignment(role=Role.PARTICIPANT, name=Name(f"site-{n}")) for n in range(3)]
    server = Assignment(role=Role.SERVER, name=Name("www"))
    with pytest.raises(Malformed, match="DNS"):
        world.op.create_tokens([*wanted, server], ttl=timedelta(minutes=5))
    assert world.op.list_tokens() == ()
    named = replace(server, dns_names=("www.example.org",))
    tokens = world.op.create_tokens([*wanted, named], ttl=timedelta(minutes=5))
    assert len({token.secret for token in tokens}) == 4
    issued = world.authority.enroll(request(tokens[3], generate(), None))
    assert world.op.get_enrollment(issued.spiffe_id).dns_names == ("www.example.org",)


# Renewal: carried by an operator, asked for by the holder.


def _renewal(member: Member, *, by: FileSigner | None = None) -> BulkItem:
    csr = create_csr(generate())
    proof = (by or member.signer).sign(renewal_challenge(csr, member.spiffe_id))
    who = Assignment(role=member.spiffe_id.role, name=member.name)
    return BulkItem(who=who, csr_der=csr, proof=proof)


def test_a_renewal_that_its_holder_signed_is_carried_by_an_operator(world: World) -> None:
    sites = [world.join(f"site-{n}") for n in range(2)]
    items = [_renewal(site) for site in sites]
    answer = world.op.renew_bulk(items, atomic=False)
    assert _reasons(answer.results) == [None, None]
    assert world.op.renew_bulk(items, atomic=False).results == answer.results
    for site, result in zip(sites, answer.results, strict=True):
        chain = (result.certificate or b"", *answer.issuers)
        found = verify_certificate(chain, bundle=world.bundle, at=world.clock.now())
        assert found.spiffe_id == site.spiffe_id


def test_an_operator_cannot_renew_in_anybody_s_name(world: World) -> None:
    site, other, revoked = world.join("site-0"), world.join("site-1"), world.join("site-2")
    world.revoke(revoked)
    swapped = replace(_renewal(other), who=Assignment(role=Role.PARTICIPANT, name=Name("site-0")))
    items = [
        _renewal(site, by=world.operator.signer),
        replace(_renewal(other), proof=None),
        _renewal(revoked),
    ]
    answer = world.op.renew_bulk(items, atomic=False)
    assert _reasons(answer.results) == ["signature-invalid", "signature-invalid", "not-active"]
    assert _reasons(world.op.renew_bulk([swapped], atomic=False).results) == ["signature-invalid"]


# The inventory.


def _find(world: World, **wanted: object) -> dict[str, InventoryEntry]:
    pages = world.op.find_participants(InventoryFilter(**wanted))  # type: ignore[arg-type]
    return {str(e.enrollment.spiffe_id.name): e for page in pages for e in page}


def test_the_inventory_knows_who_was_seen_when_and_in_which_round(each_world_with: WorldWith) -> None:
    world = each_world_with(ApprovalPolicy())
    aggregator, site, idle = world.join("main", Role.AGGREGATOR), world.join("site-a"), world.join("site-b")
    exchange = Exchange(world, aggregator)
    exchange.open(site, idle)
    exchange.seal(exchange.answer(site))
    started = world.clock.now()
    world.clock.advance(timedelta(minutes=30))
    world.session(site).bundle()
    found = _find(world)
    assert list(found) == ["main", "root", "site-a", "site-b"]
    assert found["site-a"].last_seen == world.clock.now()
    assert found["site-b"].last_seen == started  # when its certificate was issued
    mark = found["site-a"].last_round
    assert mark is not None
    assert (mark.step, mark.at) == (1, started)
    assert found["site-b"].last_round is None
    assert found["site-a"].live_certificates == 1
    world.reopen()
    assert _find(world)["site-a"].last_seen == world.clock.now()


def test_the_inventory_is_filtered_by_everything_it_shows(world: World) -> None:
    world.join("main", Role.AGGREGATOR)
    sites = [world.join(f"site-{n}") for n in range(3)]
    world.revoke(sites[2])
    world.op.enroll_bulk([_item("bulk-0")], atomic=False)
    world.clock.advance(timedelta(minutes=30))
    sites[1] = world.renew(sites[1])
    now = world.clock.now()
    assert set(_find(world, role=Role.AGGREGATOR)) == {"main"}
    assert set(_find(world, standing="revoked")) == {"site-2"}
    assert set(_find(world, evidence="bulk")) == {"bulk-0"}
    assert set(_find(world, prefix="site-")) == {"site-0", "site-1", "site-2"}
    soon = now + timedelta(minutes=35)
    assert set(_find(world, expires_by=soon, prefix="site-")) == {"site-0", "site-2"}
    assert set(_find(world, unseen_since=now - timedelta(minutes=1), prefix="site-")) == {"site-0", "site-2"}
    assert set(_find(world, no_round_since=now, role=Role.PARTICIPANT)) >= {"site-0"}
    assert set(_find(world, role=Role.PARTICIPANT, standing="active", prefix="site-2")) == set()
    with pytest.raises(PermissionDenied):
        world.session(sites[0]).find_participants(InventoryFilter())
