"""CRLs say what the trust feed says, of every certificate, until it has ended and a little longer."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from authority_world import START, Authorities, World
from cryptography import x509
from cryptography.x509.ocsp import OCSPCertStatus
from sqlalchemy import delete as sql_delete
from status_world import (
    DAY,
    HOLD,
    HOUR,
    MINUTE,
    REMOVED,
    asked,
    base_number,
    combined,
    complete,
    delta,
    issuer_of,
    leaf_serial,
    listed,
    number,
)

from fltrust.coordinator.status import crls
from fltrust.errors import NotFound
from fltrust.identity import CaKeyId, Role, SpiffeId
from fltrust.pki.leaf import ca_key_id
from fltrust.pki.pointers import key_identifier_of
from fltrust.revocation.events import EventKind, RevocationReason
from fltrust.revocation.ports import RevocationTarget
from fltrust.storage import CommitStep
from fltrust.storage.status_tables import status_feed, statuses

REASONS = x509.ReasonFlags


@pytest.fixture
def world(tmp_path: Path, ca: Authorities) -> Iterator[World]:
    """On SQLite: what differs between databases is tried in tests/storage."""
    tmp_path.chmod(0o700)
    world = World(f"sqlite:///{tmp_path / 'state.db'}", ca=ca)
    yield world
    world.close()


def test_an_identity_that_is_revoked_has_every_certificate_listed_with_reason_and_invalidity_date(
    world: World,
) -> None:
    first = world.join("site-a")
    complete(world)
    world.clock.advance(MINUTE)
    second, other = world.renew(first), world.join("site-b")
    since = world.clock.now() - HOUR
    event = world.revoke(second, compromised_since=since)
    found = listed(complete(world))
    assert set(found) == {leaf_serial(first), leaf_serial(second)}
    for entry in found.values():
        assert entry.reason is REASONS.key_compromise
        assert entry.invalid_since == since.replace(microsecond=0)
        assert entry.at == event.at.replace(microsecond=0)
    assert leaf_serial(other) not in found
    assert listed(delta(world)) == found


def test_one_serial_that_is_revoked_is_listed_alone(world: World) -> None:
    first = world.join("site-a")
    second = world.renew(first)
    world.op.revoke(
        RevocationTarget(serial=second.certificate.serial), reason=RevocationReason.CESSATION_OF_OPERATION
    )
    assert {serial: entry.reason for serial, entry in listed(complete(world)).items()} == {
        leaf_serial(second): REASONS.cessation_of_operation
    }


def test_a_key_that_is_revoked_has_its_certificate_listed(world: World) -> None:
    member = world.join("site-a")
    world.op.revoke(
        RevocationTarget(key=member.certificate.key_id), reason=RevocationReason.AFFILIATION_CHANGED
    )
    assert listed(complete(world))[leaf_serial(member)].reason is REASONS.affiliation_changed


def test_no_reason_is_said_by_leaving_it_out(world: World) -> None:
    member = world.join("site-a")
    world.op.revoke(member.target, reason=RevocationReason.UNSPECIFIED)
    assert listed(complete(world))[leaf_serial(member)].reason is None


def test_a_hold_is_listed_as_one_and_its_end_is_told_by_the_delta(world: World) -> None:
    member = world.join("site-a")
    before = complete(world)
    world.op.hold(member.target, reason=RevocationReason.UNSPECIFIED)
    held = delta(world)
    assert listed(held)[leaf_serial(member)].reason is HOLD
    assert listed(complete(world))[leaf_serial(member)].reason is HOLD
    world.op.release(member.target)
    freed = delta(world)
    assert listed(freed)[leaf_serial(member)].reason is REMOVED
    assert listed(complete(world)) == {}
    assert combined(before, freed) == {}


def test_whoever_is_revoked_while_on_hold_is_revoked_as_of_the_hold(world: World) -> None:
    member = world.join("site-a")
    (held,) = world.op.hold(member.target, reason=RevocationReason.UNSPECIFIED)
    world.clock.advance(5 * MINUTE)
    world.revoke(member)
    entry = listed(complete(world))[leaf_serial(member)]
    assert (entry.reason, entry.at) == (REASONS.key_compromise, held.at.replace(microsecond=0))


def test_a_release_of_the_identity_does_not_free_a_certificate_that_is_revoked_for_good(world: World) -> None:
    first = world.join("site-a")
    second = world.renew(first)
    world.op.hold(first.target, reason=RevocationReason.UNSPECIFIED)
    world.op.revoke(RevocationTarget(serial=first.certificate.serial), reason=RevocationReason.KEY_COMPROMISE)
    world.op.release(second.target)
    assert set(listed(complete(world))) == {leaf_serial(first)}


def test_a_replaced_enrollment_leaves_its_certificates_superseded(world: World) -> None:
    first = world.join("site-a")
    second = world.join("site-a", token=world.token("site-a", replace=True))
    assert {serial: entry.reason for serial, entry in listed(complete(world)).items()} == {
        leaf_serial(first): REASONS.superseded
    }
    world.revoke(second)
    world.join("site-a", token=world.token("site-a", replace=True))
    found = listed(complete(world))
    assert set(found) == {leaf_serial(first), leaf_serial(second)}
    assert found[leaf_serial(first)].reason is REASONS.superseded  # as it was first said


def test_an_earlier_compromise_that_is_learned_later_moves_the_invalidity_date_and_nothing_else(
    world: World,
) -> None:
    member = world.join("site-a")
    first = world.revoke(member, compromised_since=START - HOUR)
    world.clock.advance(MINUTE)
    world.revoke(member, compromised_since=START - DAY)
    entry = listed(complete(world))[leaf_serial(member)]
    assert (entry.invalid_since, entry.at) == (START - DAY, first.at.replace(microsecond=0))


def test_numbers_grow_over_complete_and_delta_and_over_a_restart(world: World) -> None:
    found = []
    for round_ in range(3):
        world.join(f"site-{round_}")
        found += [number(complete(world)), number(delta(world))]
        world.revoke(world.join(f"bad-{round_}"))
        found += [number(complete(world)), number(delta(world))]
        world.reopen()
    assert found == sorted(found)
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("step", list(CommitStep))
def test_no_number_is_given_out_twice_when_the_commit_fails(world: World, step: CommitStep) -> None:
    first = number(complete(world))

    def fail(reached: CommitStep) -> None:
        if reached is step:
            raise OSError("the disk is gone")

    world.revoke(world.join("site-a"))
    world.store.on_commit = fail
    with pytest.raises(OSError, match="disk"):
        complete(world)
    world.store.on_commit = None
    assert number(complete(world)) > first
    before = number(complete(world))
    world.reopen()
    assert number(complete(world)) > before


def test_an_event_that_is_undone_leaves_no_status(world: World) -> None:
    member = world.join("site-a")

    def fail(reached: CommitStep) -> None:
        if reached is CommitStep.BEFORE:
            raise OSError("the disk is gone")

    complete(world)
    world.store.on_commit = fail
    with pytest.raises(OSError, match="disk"):
        world.revoke(member)
    world.store.on_commit = None
    assert listed(complete(world)) == {}


def test_a_scheduled_crl_after_its_end_is_the_last_that_lists_a_certificate(world: World) -> None:
    member = world.join("site-a")
    world.revoke(member)
    end = member.certificate.not_after
    seen_after_end = False
    for _ in range(60):
        world.clock.advance(HOUR)
        crl = complete(world)
        if leaf_serial(member) not in listed(crl):
            break
        seen_after_end |= crl.last_update_utc > end
    else:
        pytest.fail("it never left the list")
    assert seen_after_end
    assert world.clock.now() >= end + DAY, "it left before one lifetime of a CRL was over"


def test_long_without_a_crl_the_next_one_still_lists_what_ended_meanwhile(world: World) -> None:
    member = world.join("site-a")
    complete(world)
    world.revoke(member)
    world.reopen()
    world.clock.advance(30 * DAY)
    identity_is_over = complete(world)
    assert leaf_serial(member) in listed(identity_is_over)
    world.clock.advance(DAY + HOUR)
    assert leaf_serial(member) not in listed(complete(world))


def test_what_left_the_list_is_never_good_again(world: World) -> None:
    member = world.join("site-a")
    world.revoke(member)
    for _ in range(4):
        world.clock.advance(30 * DAY)
        complete(world)
    assert listed(complete(world)) == {}
    assert asked(world, leaf_serial(member)).certificate_status is OCSPCertStatus.REVOKED


def test_a_clock_that_jumped_ahead_and_back_un_revokes_nothing(world: World) -> None:
    member = world.join("site-a")
    world.revoke(member)
    complete(world)
    for _ in range(4):
        world.clock.advance(20 * DAY)
        complete(world)
    world.clock.advance(-80 * DAY)
    assert leaf_serial(member) in listed(complete(world))
    world.reopen()
    assert leaf_serial(member) in listed(complete(world))


def test_statuses_from_before_there_was_a_table_are_taken_from_the_feed(world: World) -> None:
    members = [world.join(f"site-{letter}") for letter in "abc"]
    world.revoke(members[0], compromised_since=START - HOUR)
    world.op.hold(members[1].target, reason=RevocationReason.UNSPECIFIED)
    world.op.hold(members[2].target, reason=RevocationReason.UNSPECIFIED)
    world.op.release(members[2].target)
    before = listed(complete(world))
    with world.store.writing() as tx:
        tx.connection.execute(sql_delete(statuses))
        tx.connection.execute(sql_delete(status_feed))
    world.reopen()
    assert listed(complete(world)) == before
    assert set(before) == {leaf_serial(members[0]), leaf_serial(members[1])}


def test_the_delta_refers_to_the_last_scheduled_list_and_fits_every_list_since(world: World) -> None:
    scheduled = complete(world)
    lists = [scheduled]
    for letter in "abc":
        world.revoke(world.join(f"site-{letter}"))
        lists.append(complete(world))
    world.revoke(world.join("site-d"))
    newest = delta(world)
    assert base_number(newest) == number(scheduled)
    expected = listed(complete(world))
    assert len(expected) == 4
    for one in lists:
        assert combined(one, newest) == expected


def test_a_delta_that_grew_large_makes_the_next_list_its_base(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crls, "MAX_DELTA", 1)
    scheduled = number(complete(world))
    for letter in "ab":
        world.revoke(world.join(f"site-{letter}"))
        assert base_number(delta(world)) == scheduled
    assert len(delta(world)) == 0
    assert base_number(delta(world)) > scheduled
    assert len(complete(world)) == 2


def test_a_list_is_made_again_when_half_its_time_is_over_and_not_before(world: World) -> None:
    first = number(complete(world))
    world.clock.advance(5 * HOUR)
    assert number(complete(world)) == first
    world.clock.advance(HOUR + MINUTE)
    assert number(complete(world)) > first


def test_who_enrolls_changes_no_list(world: World) -> None:
    first, part = number(complete(world)), number(delta(world))
    world.join("site-a")
    assert (number(complete(world)), number(delta(world))) == (first, part)


def test_after_a_rollover_both_cas_are_published_each_with_its_own(world: World, ca: Authorities) -> None:
    old, other = world.join("site-a"), issuer_of(world)
    world.revoke(old)
    following = Authorities.make()
    world.in_force.replace(issuer=following.issuer)
    new_key = key_identifier_of(following.issuer.certificate)
    assert set(listed(complete(world, other))) == {leaf_serial(old)}
    assert listed(complete(world, new_key)) == {}
    assert complete(world, other).is_signature_valid(ca.issuer.certificate.public_key())  # type: ignore[arg-type]
    assert number(complete(world, new_key)) == int(world.clock.now().timestamp())
    assert set(world.authority.status.issuers) == {other, new_key}
    pem = world.authority.status.all_crls()
    assert pem.count(b"BEGIN X509 CRL") == 2


def test_a_ca_that_is_not_ours_has_no_list(world: World) -> None:
    with pytest.raises(NotFound):
        world.authority.status.complete_crl(CaKeyId("0" * 40))
    with pytest.raises(NotFound):
        world.authority.status.delta_crl(CaKeyId("0" * 40))


def test_a_ca_that_is_revoked_has_all_that_it_issued_listed(world: World) -> None:
    members = [world.join("site-a"), world.join("main", Role.AGGREGATOR)]
    ca_key = ca_key_id(world.in_force.issuer.certificate.public_key())
    with world.authority.ledger.writing() as work:
        work.emit(EventKind.ISSUER_REVOKED, actor=None, domain=members[0].spiffe_id.domain, issuer=ca_key)
    found = listed(complete(world))
    assert {leaf_serial(member) for member in members} <= set(found)
    assert {entry.reason for entry in found.values()} == {REASONS.ca_compromise}


def test_the_list_says_its_scope_and_is_signed_by_the_ca(world: World) -> None:
    crl = complete(world)
    scope = crl.extensions.get_extension_for_class(x509.IssuingDistributionPoint)
    assert scope.critical
    assert scope.value.only_contains_user_certs
    assert scope.value.full_name is None
    assert crl.is_signature_valid(world.in_force.issuer.certificate.public_key())  # type: ignore[arg-type]
    assert crl.next_update_utc is not None
    assert crl.next_update_utc - world.clock.now() == DAY
    assert world.clock.now() - crl.last_update_utc == timedelta(seconds=60)


def test_what_a_foreign_domain_says_of_our_serials_keys_and_ca_is_in_no_list_of_ours(world: World) -> None:
    member = world.join("site-a")
    stranger = SpiffeId.of("elsewhere.example", Role.PARTICIPANT, "site-a")
    ca_key = ca_key_id(world.in_force.issuer.certificate.public_key())
    with world.authority.ledger.writing() as work:
        work.emit(EventKind.ENROLLED, actor=None, subject=stranger, node_key=b"their node key")
        for kind in (EventKind.HELD, EventKind.REVOKED):
            work.emit(
                kind,
                actor=None,
                subject=stranger,
                serials=(member.certificate.serial,),
                keys=(member.certificate.key_id,),
                identity_wide=True,
                reason=RevocationReason.KEY_COMPROMISE,
            )
        work.emit(EventKind.ISSUER_REVOKED, actor=None, domain=stranger.domain, issuer=ca_key)
    assert listed(complete(world)) == {}
    world.authority.judge(member.certificate)
    with world.authority.ledger.reading() as tx:
        assert tx.statuses.issuer_revoked_at(ca_key) is None
        assert tx.statuses.fed == tx.events.head
